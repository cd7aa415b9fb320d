// Experts of Mixtral-8x7B's shape on the device: 8 experts of 4096 x 14336, top-2 by a random gate. One
// line of JSON per number of tokens, with the share of the copy bandwidth (decode) and the rate (prefill);
// "routed_us" is the same with routes that the host does not see, "router_us" what a router does beside
// the experts when rows stay on the device: norm, gate, top-k, fold.
// gpu_expert_bench [bf16|int8|int4] [TOKENS ...]

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu/gpu_bench.h"
#include "gatefold/cuda/expert_mlp.h"
#include "gatefold/cuda/pack_weights.h"
#include "gatefold/cuda/routed_mlp.h"
#include "gatefold/cuda/router_rows.h"

namespace gatefold::cuda {
namespace {

constexpr int kExperts = 8, kTopK = 2;
constexpr int kLayers = 3;  // taken by turns, so that no cache holds what was read before
constexpr int64_t kModel = 4096, kIntermediate = 14336;
constexpr int64_t kWeights = 3 * kModel * kIntermediate;  // of an expert

// bfloat16 values of about `scale` from a counter.
__global__ void FillRandom(uint16_t* values, size_t n, float scale, uint32_t seed) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n; i += stride) {
    uint32_t h = static_cast<uint32_t>(i) * 0x9E3779B1u + static_cast<uint32_t>(i >> 32) + seed;
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    h ^= h >> 16;
    const float value = (static_cast<float>(h) / 4294967296.0f - 0.5f) * 3.4f * scale;
    values[i] = static_cast<uint16_t>(__float_as_uint(value) >> 16);
  }
}

void* RandomWeights(const TileShape& shape, uint32_t seed) {
  const size_t n = shape.n_out * shape.n_in;
  uint16_t* rows = Allocate<uint16_t>(n);
  char* tiles = Allocate<char>(shape.weight_bytes());
  GF_CHECK_CUDA(cudaMemset(tiles, 0, shape.weight_bytes()));  // quantised weights are put there by OR
  for (int matrix = 0; matrix < (shape.two_matrices ? 2 : 1); ++matrix) {
    FillRandom<<<1024, 256>>>(rows, n, 1.0f / std::sqrt(float(shape.n_in)), 2 * seed + matrix);
    GF_CHECK_CUDA(PackWeights(shape, rows, 0, shape.n_out, matrix, tiles, nullptr));
  }
  GF_CHECK_CUDA(cudaFree(rows));
  return tiles;
}

template <typename T>
T* ToDevice(const std::vector<T>& host) {
  T* const device = Allocate<T>(host.size());
  GF_CHECK_CUDA(cudaMemcpy(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  return device;
}

struct Routes {
  std::vector<std::vector<int32_t>> rows{kExperts}, slots{kExperts};
  std::vector<int32_t> experts;  // [tokens, kTopK], ascending
  int n_visited = 0;

  Routes(int n_tokens, std::mt19937* generator) {
    std::vector<int> order(kExperts);
    std::iota(order.begin(), order.end(), 0);
    for (int token = 0; token < n_tokens; ++token) {
      std::shuffle(order.begin(), order.end(), *generator);
      std::sort(order.begin(), order.begin() + kTopK);
      for (int k = 0; k < kTopK; ++k) {
        rows[order[k]].push_back(token);
        slots[order[k]].push_back(token * kTopK + k);
        experts.push_back(order[k]);
      }
    }
    for (const auto& r : rows) n_visited += !r.empty();
  }
  std::vector<ExpertVisits> Visits(const DeviceExpert* experts) const {
    std::vector<ExpertVisits> visits;
    for (int e = 0; e < kExperts; ++e) {
      if (rows[e].empty()) continue;
      visits.push_back({&experts[e], rows[e].data(), slots[e].data(), static_cast<int>(rows[e].size())});
    }
    return visits;
  }
};

// What a router computes of n rows around the experts of a layer.
class Router {
 public:
  explicit Router(int most)
      : norm_(ToDevice(std::vector<float>(kModel, 1.0f))),
        gate_(ToDevice(std::vector<float>(kExperts * kModel, 0.01f))),
        x_(ToDevice(std::vector<float>(most * kModel, 1.0f))),
        h_(Allocate<float>(most * kModel)),
        logits_(Allocate<float>(most * kExperts)),
        weights_(Allocate<float>(most * kTopK)),
        experts_(Allocate<int32_t>(most * kTopK)) {}

  void Run(int n, const float* answers) {
    GF_CHECK_CUDA(RouterNorm(x_, norm_, 1e-5f, h_, n, kModel, nullptr));
    GF_CHECK_CUDA(GateLogits(h_, gate_, logits_, n, kModel, kExperts, nullptr));
    GF_CHECK_CUDA(GateTopK(logits_, n, kExperts, kTopK, experts_, weights_, nullptr));
    GF_CHECK_CUDA(FoldAnswers(answers, weights_, false, x_, n, kTopK, kModel, nullptr));
  }

 private:
  float *norm_, *gate_, *x_, *h_, *logits_, *weights_;
  int32_t* experts_;
};

void Main(const char* name, WeightFormat format, const std::vector<int>& tokens) {
  const ExpertShape shape{kModel, kIntermediate, format};
  std::vector<DeviceExpert> experts(kLayers * kExperts);
  for (size_t i = 0; i < experts.size(); ++i) {
    experts[i].w13 = RandomWeights(shape.w13(), 2 * i);
    experts[i].w2 = RandomWeights(shape.w2(), 2 * i + 1);
  }
  const int most = *std::max_element(tokens.begin(), tokens.end());
  float* x = Allocate<float>(static_cast<size_t>(most) * shape.d_model);
  float* y = Allocate<float>(static_cast<size_t>(most) * kTopK * shape.d_model);
  std::vector<float> host(static_cast<size_t>(most) * shape.d_model);
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  for (float& v : host) v = normal(generator);
  GF_CHECK_CUDA(cudaMemcpy(x, host.data(), host.size() * 4, cudaMemcpyHostToDevice));

  ExpertMlp mlp(shape);
  RoutedMlp routed(shape, kExperts, kTopK);
  Router router(most);
  const DeviceExpert* const table = ToDevice(experts);
  uint64_t* const n_visits = ToDevice(std::vector<uint64_t>(kExperts));
  const double expert_bytes = static_cast<double>(shape.weight_bytes());
  for (int n : tokens) {
    // Several draws of routes, since how many experts are visited decides how much is read.
    std::vector<Routes> routes;
    std::vector<std::vector<ExpertVisits>> visits;
    double bytes = 0;
    for (int i = 0; i < kLayers * 4; ++i) {
      routes.emplace_back(n, &generator);
      bytes += routes.back().n_visited * expert_bytes / (kLayers * 4);
    }
    for (size_t i = 0; i < routes.size(); ++i) visits.push_back(routes[i].Visits(&experts[i % kLayers * kExperts]));
    const double copy = CopyBandwidth();
    const int calls = n > 256 ? kLayers : kLayers * 4;
    const double seconds = MedianSeconds(n > 256 ? 9 : 21, calls, [&](int i) {
      const auto& v = visits[i % visits.size()];
      GF_CHECK_CUDA(mlp.Run(v.data(), static_cast<int>(v.size()), x, y, nullptr));
    });
    std::vector<const int32_t*> device_routes;
    for (const Routes& r : routes) device_routes.push_back(ToDevice(r.experts));
    const double routed_seconds = MedianSeconds(n > 256 ? 9 : 21, calls, [&](int i) {
      const size_t draw = i % routes.size();
      GF_CHECK_CUDA(routed.Run(table + draw % kLayers * kExperts, device_routes[draw], n, x, y, n_visits, nullptr));
    });
    const double router_seconds = MedianSeconds(21, 12, [&](int) { router.Run(n, y); });
    const double flops = 2.0 * kWeights * n * kTopK;
    std::printf("{\"kernel\":\"experts\",\"weights\":\"%s\",\"tokens\":%d,\"us\":%.1f,\"routed_us\":%.1f,\"router_us\":%.1f,"
                "\"weights_gb_s\":%.0f,\"copy_gb_s\":%.0f,\"share_of_copy\":%.3f,\"tflops\":%.1f}\n",
                name, n, seconds * 1e6, routed_seconds * 1e6, router_seconds * 1e6, bytes / seconds * 1e-9, copy * 1e-9, bytes / seconds / copy,
                flops / seconds * 1e-12);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace gatefold::cuda

int main(int argc, char** argv) {
  using gatefold::cuda::WeightFormat;
  constexpr std::pair<const char*, WeightFormat> kFormats[] = {
      {"bf16", WeightFormat::kBF16}, {"int8", WeightFormat::kInt8}, {"int4", WeightFormat::kInt4}};
  std::pair<const char*, WeightFormat> chosen = kFormats[0];
  int next = 1;
  for (const auto& format : kFormats) {
    if (argc > 1 && std::string(argv[1]) == format.first) {
      chosen = format;
      next = 2;
    }
  }
  std::vector<int> tokens;
  for (int i = next; i < argc; ++i) {
    const int n = std::atoi(argv[i]);
    if (n < 1 || n > 65536) {
      std::fprintf(stderr, "usage: %s [bf16|int8|int4] [TOKENS ...], each from 1 to 65536\n", argv[0]);
      return 2;
    }
    tokens.push_back(n);
  }
  if (tokens.empty()) tokens = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096};
  gatefold::cuda::Main(chosen.first, chosen.second, tokens);
}

#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/random_weights.h"
#include "bench/kernels/roofline.h"
#include "gatefold/kernels/expert_mlp.h"

namespace gatefold::bench {
namespace {

constexpr int64_t kD = 1024;
constexpr int64_t kF = 2816;
constexpr int kExperts = 8;
constexpr int kTopK = 2;
constexpr int kLayers = 4;  // 554 MB in bfloat16, 156 MB in int4

// Two experts per row, spread as a fair gate would spread them.
struct Routes {
  explicit Routes(int n_rows) : rows(kExperts), slots(kExperts) {
    std::minstd_rand engine(3);
    for (int r = 0; r < n_rows; ++r) {
      const int first = static_cast<int>(engine() % kExperts);
      const int second = (first + 1 + static_cast<int>(engine() % (kExperts - 1))) % kExperts;
      for (int k = 0; k < kTopK; ++k) {
        rows[k == 0 ? first : second].push_back(r);
        slots[k == 0 ? first : second].push_back(kTopK * r + k);
      }
    }
    for (const auto& of_expert : rows) n_visited += of_expert.empty() ? 0 : 1;
  }
  std::vector<std::vector<int32_t>> rows, slots;
  int n_visited = 0;
};

void ExpertMlpBench(benchmark::State& state, const Bench& bench, WeightKind kind, int n_rows) {
  const std::vector<char> weights = RandomWeights(DType::kBF16, kD * kF);
  const MatrixView up{DType::kBF16, kF, kD, kD, weights.data()};
  const MatrixView down{DType::kBF16, kD, kF, kF, weights.data()};
  std::vector<ExpertWeights> experts;
  for (int i = 0; i < kLayers * kExperts; ++i) {
    experts.emplace_back(ExpertWeights::Views{up, up, down, {}, {}, {}}, bench.threads, kind);
  }
  const Routes routes(n_rows);
  const std::vector<float> x = RandomFloats(n_rows * kD);
  std::vector<float> y(kTopK * n_rows * kD);
  int layer = 0;
  const double numbers = 3.0 * kD * kF;  // of one expert
  const auto bytes = static_cast<double>(experts[0].size_bytes());
  const Work work{.bytes = bytes * routes.n_visited, .flops = 2 * numbers * kTopK * n_rows};
  MeasureAgainstLimits(state, bench.limits, work, [&] {
    std::vector<kernels::ExpertGroup> groups;
    for (int e = 0; e < kExperts; ++e) {
      groups.push_back({&experts[layer * kExperts + e], routes.rows[e], routes.slots[e]});
    }
    kernels::ExpertMlp(groups, x.data(), n_rows, y.data(), bench.threads);
    layer = (layer + 1) % kLayers;
  });
  state.counters["experts"] = routes.n_visited;
}

}  // namespace

void RegisterExpertMlp(const Bench& bench) {
  for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
    const char* name = kind == WeightKind::kCheckpoint ? "bfloat16" : WeightKindName(kind);
    for (int n_rows : {1, 2, 4, 8, 16, 128, 512}) {
      benchmark::RegisterBenchmark(absl::StrCat("expert_mlp/", name, "/rows:", n_rows).c_str(),
                                   ExpertMlpBench, bench, kind, n_rows)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
}

}  // namespace gatefold::bench

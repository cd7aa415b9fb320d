// Paged attention on the device, a line of JSON per case: time of one layer's call in a captured
// step, bytes that must be read and written over it, the share of what large copies reach here; the time
// of what comes before it in a step, rotation and append, and that of both together.
//   attention_bench            all cases
//   attention_bench decode     those whose name contains the word

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/gpu/graph_timing.h"
#include "gatefold/cuda/attention.h"

namespace gatefold::cuda {
namespace {

struct Case {
  const char* name;
  int n_sequences;
  int context;   // positions before the step's own
  int n_tokens;  // of each sequence in the step
  int n_heads, n_kv_heads, head_dim, window;
  bool in_order = false;  // blocks of a sequence one after another, else shuffled
};

const Case kCases[] = {
    {"decode 32 x 4096", 32, 4095, 1, 32, 8, 128, 0},
    {"decode 32 x 4096 blocks in order", 32, 4095, 1, 32, 8, 128, 0, true},
    {"decode 1 x 4096", 1, 4095, 1, 32, 8, 128, 0},
    {"decode 8 x 4096", 8, 4095, 1, 32, 8, 128, 0},
    {"decode 64 x 1024", 64, 1023, 1, 32, 8, 128, 0},
    {"decode 4 x 32768", 4, 32767, 1, 32, 8, 128, 0},
    {"decode 1 x 32768", 1, 32767, 1, 32, 8, 128, 0},
    {"decode 32 x 4096 of 4 tokens", 32, 4092, 4, 32, 8, 128, 0},
    {"decode 32 x 4096 heads 32/32", 32, 4095, 1, 32, 32, 128, 0},
    {"decode 32 x 4096 head_dim 64", 32, 4095, 1, 32, 8, 64, 0},
    {"decode 32 x 4096 window 1024", 32, 4095, 1, 32, 8, 128, 1024},
    {"prefill 1 x 4096", 1, 0, 4096, 32, 8, 128, 0},
    {"prefill 8 x 512", 8, 0, 512, 32, 8, 128, 0},
    {"prefill 1 x 4096 head_dim 64", 1, 0, 4096, 32, 8, 64, 0},
    {"prefill chunk 512 after 8192", 1, 8192, 512, 32, 8, 128, 0},
    {"prefill chunk 64 after 8192", 1, 8192, 64, 32, 8, 128, 0},
};

// Values near those of a normal distribution; real data draws other power than zeros.
__global__ void FillKernel(__nv_bfloat16* to, int64_t n, uint32_t seed) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += step) {
    uint32_t x = static_cast<uint32_t>(i) * 0x9E3779B9u + seed + static_cast<uint32_t>(i >> 32);
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    x ^= x >> 16;
    const int sum = static_cast<int>(x & 255) + static_cast<int>(x >> 8 & 255) +
                    static_cast<int>(x >> 16 & 255) + static_cast<int>(x >> 24);
    to[i] = __float2bfloat16_rn((sum - 510) / 148.0f);
  }
}

__nv_bfloat16* Filled(int64_t n, uint32_t seed) {
  void* data;
  GF_CHECK_CUDA(cudaMalloc(&data, n * sizeof(__nv_bfloat16)));
  FillKernel<<<2048, 256>>>(static_cast<__nv_bfloat16*>(data), n, seed);
  GF_CHECK_CUDA(cudaGetLastError());
  return static_cast<__nv_bfloat16*>(data);
}

template <typename T>
T* Uploaded(const std::vector<T>& host) {
  void* data;
  GF_CHECK_CUDA(cudaMalloc(&data, host.size() * sizeof(T)));
  GF_CHECK_CUDA(cudaMemcpy(data, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  return static_cast<T*>(data);
}

void* Allocated(size_t bytes) {
  void* data;
  GF_CHECK_CUDA(cudaMalloc(&data, std::max<size_t>(bytes, 16)));
  return data;
}

class Bench {
 public:
  explicit Bench(const Case& c)
      : shape_{c.n_heads, c.n_kv_heads, c.head_dim, c.window,
               1.0f / std::sqrt(static_cast<float>(c.head_dim))} {
    const int n_positions = c.context + c.n_tokens;
    const int n_blocks_each = (n_positions + 15) / 16;
    stride_ = (n_blocks_each + 3) / 4 * 4;
    n_blocks_ = int64_t{c.n_sequences} * n_blocks_each;
    std::vector<int32_t> ids(n_blocks_);
    std::iota(ids.begin(), ids.end(), 0);
    if (!c.in_order) std::shuffle(ids.begin(), ids.end(), std::mt19937_64(1));
    std::vector<int32_t> table(static_cast<size_t>(c.n_sequences) * stride_, 0);
    for (int s = 0; s < c.n_sequences; ++s) {
      for (int b = 0; b < n_blocks_each; ++b) {
        table[size_t{1} * s * stride_ + b] = ids[size_t{1} * s * n_blocks_each + b];
      }
      for (int t = 0; t < c.n_tokens; ++t) rows_.push_back({c.context + t, s});
    }
    std::vector<int32_t> positions, sequences;
    for (const PlanRow& row : rows_) {
      positions.push_back(row.position);
      sequences.push_back(row.sequence);
    }
    Take(batch_.block_tables, Uploaded(table));
    Take(batch_.positions, Uploaded(positions));
    Take(batch_.sequences, Uploaded(sequences));
    batch_.table_stride = stride_;
    batch_.n_rows = static_cast<int>(rows_.size());
    MakeCaches();
    MakePlan();
    MakeRope(n_positions);
  }
  ~Bench() {
    for (void* data : owned_) cudaFree(data);
  }

  void Run(const Case& c, double copy_rate) {
    const Times attention = TimeGraph(n_caches_, 31, [&](cudaStream_t stream, int turn) {
      GF_CHECK_CUDA(Attention(shape_, batch_, plan_, q_, kv_ + turn * cache_elements_, nullptr,
                        out_, stream));
    });
    const Times rope = TimeGraph(n_caches_, 31, [&](cudaStream_t stream, int turn) {
      GF_CHECK_CUDA(RopeAppend(shape_, batch_, qkv_, Width(), {cos_, sin_}, q_,
                         kv_ + turn * cache_elements_, stream));
    });
    const Times both = TimeGraph(n_caches_, 31, [&](cudaStream_t stream, int turn) {
      __nv_bfloat16* const kv = kv_ + turn * cache_elements_;
      GF_CHECK_CUDA(RopeAppend(shape_, batch_, qkv_, Width(), {cos_, sin_}, q_, kv, stream));
      GF_CHECK_CUDA(Attention(shape_, batch_, plan_, q_, kv, nullptr, out_, stream));
    });
    const double bytes = Bytes();
    const double rate = bytes / attention.median;
    std::printf(
        "{\"kernel\":\"attention\",\"case\":\"%s\",\"sequences\":%d,\"context\":%d,\"tokens\":%d,"
        "\"n_heads\":%d,\"n_kv_heads\":%d,\"head_dim\":%d,\"window\":%d,\"us\":%.1f,"
        "\"us_lowest\":%.1f,\"us_highest\":%.1f,\"gb_s\":%.0f,\"copy_gb_s\":%.0f,"
        "\"share_of_copy\":%.3f,\"tflops\":%.1f,\"rope_append_us\":%.1f,\"both_us\":%.1f}\n",
        c.name, c.n_sequences, c.context, c.n_tokens, c.n_heads, c.n_kv_heads, c.head_dim, c.window,
        attention.median, attention.lowest, attention.highest, rate * 1e-3, copy_rate * 1e-3,
        rate / copy_rate, Operations() / attention.median * 1e-6, rope.median, both.median);
  }

 private:
  // Keeps what was allocated to the end.
  template <typename T, typename U>
  void Take(T& to, U* value) {
    to = value;
    owned_.push_back(value);
  }

  // Enough copies of the cache that none stays in the L2: several GB, or 64 of them.
  void MakeCaches() {
    cache_elements_ = n_blocks_ * KvCacheLayout{shape_.n_kv_heads, shape_.head_dim}.BlockElements();
    const int64_t wanted = (int64_t{4} << 30) / (cache_elements_ * 2) + 1;
    n_caches_ = static_cast<int>(std::clamp<int64_t>(wanted, 4, 64));
    Take(kv_, Filled(cache_elements_ * n_caches_, 1));
    const int64_t width = int64_t{shape_.n_heads} * shape_.head_dim;
    Take(q_, Filled(batch_.n_rows * width, 3));
    Take(out_, Allocated(ActivationBytes(batch_.n_rows, width)));
  }

  void MakePlan() {
    cudaDeviceProp device;
    GF_CHECK_CUDA(cudaGetDeviceProperties(&device, 0));
    PlanLimits limits = {.n_multiprocessors = device.multiProcessorCount};
    GF_CHECK_CUDA(ChooseAttentionKernels(&limits.kernels));
    const AttentionPlan plan = PlanAttention(shape_, rows_, limits);
    std::vector<unsigned char> packed(plan.PackedBytes());
    plan.Pack(packed.data());
    unsigned char* packed_device;
    Take(packed_device, Uploaded(packed));
    void* workspace;
    Take(workspace, Allocated(AttentionWorkspaceBytes(shape_, plan.n_slots)));
    plan_ = ViewPlan(plan, packed_device, workspace);
  }

  void MakeRope(int n_positions) {
    const std::vector<float> table(static_cast<size_t>(n_positions) * shape_.head_dim / 2, 0.7f);
    Take(cos_, Uploaded(table));
    Take(sin_, Uploaded(table));
    std::vector<float> qkv(static_cast<size_t>(batch_.n_rows) * Width());
    std::mt19937 bits(5);
    std::normal_distribution<float> normal;
    for (float& value : qkv) value = normal(bits);
    Take(qkv_, Uploaded(qkv));
  }

  int64_t Width() const {
    return int64_t{shape_.n_heads + 2 * shape_.n_kv_heads} * shape_.head_dim;
  }

  int64_t First(int position) const {
    return shape_.window > 0 ? std::max(0, position - shape_.window + 1) : 0;
  }

  // Each position's key and value that any row of its sequence reads, once; q and out.
  double Bytes() const {
    double positions = 0;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const bool starts = i == 0 || rows_[i].sequence != rows_[i - 1].sequence;
      positions += starts ? rows_[i].position + 1 - First(rows_[i].position) : 1;
    }
    return positions * shape_.n_kv_heads * shape_.head_dim * 4 +
           static_cast<double>(rows_.size()) * shape_.n_heads * shape_.head_dim * 4;
  }

  double Operations() const {
    double pairs = 0;
    for (const PlanRow& row : rows_) pairs += row.position + 1 - First(row.position);
    return pairs * shape_.n_heads * shape_.head_dim * 4;
  }

  const AttentionShape shape_;
  std::vector<PlanRow> rows_;
  RowBatch batch_;
  DevicePlan plan_;
  int stride_ = 0;
  int64_t n_blocks_ = 0;
  int64_t cache_elements_ = 0;
  int n_caches_ = 0;
  __nv_bfloat16 *kv_, *q_;
  void* out_;
  float *qkv_, *cos_, *sin_;
  std::vector<void*> owned_;
};

}  // namespace
}  // namespace gatefold::cuda

int main(int argc, char** argv) {
  using namespace gatefold::cuda;
  const double copy_rate = CopyBandwidth() * 1e-6;  // bytes per microsecond
  for (const Case& c : kCases) {
    if (argc > 1 && std::strstr(c.name, argv[1]) == nullptr) continue;
    Bench(c).Run(c, copy_rate);
    std::fflush(stdout);
  }
  return 0;
}

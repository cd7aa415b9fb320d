#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/random_weights.h"
#include "bench/kernels/roofline.h"
#include "gatefold/kernels/attention.h"

namespace gatefold::bench {
namespace {

constexpr int kHeads = 16;
constexpr int kKvHeads = 4;
constexpr int kHeadDim = 64;
constexpr int kWidth = kHeads * kHeadDim;
constexpr int kCacheBlocks = 1 << 15;  // 1 GiB of keys and values: one layer of many sequences

struct Cache {
  Cache() : keys(Bytes()), values(Bytes()) {
    for (int64_t i = 0; i < kCacheBlocks * layout.BlockFloats(); ++i) {
      keys.as<float>()[i] = static_cast<float>(i % 31) * 0.01f;
      values.as<float>()[i] = static_cast<float>(i % 37) * 0.01f;
    }
    for (int32_t block = 0; block < kCacheBlocks; ++block) blocks.push_back(block);
  }
  size_t Bytes() const { return kCacheBlocks * layout.BlockFloats() * sizeof(float); }

  kernels::KvLayout layout{.n_kv_heads = kKvHeads, .head_dim = kHeadDim};
  Buffer keys, values;
  std::vector<int32_t> blocks;
};

// rows[i]: the rows of the i-th call. Counts the keys and values that one call sees.
void Run(benchmark::State& state, const Bench& bench, const Cache& cache,
         const std::vector<std::vector<kernels::AttentionRow>>& calls, double keys_read) {
  double seen = 0;
  for (const kernels::AttentionRow& row : calls[0]) seen += row.position + 1;
  const Work work{.bytes = 2.0 * keys_read * kKvHeads * kHeadDim * sizeof(float),
                  .flops = 4.0 * seen * kWidth};
  size_t turn = 0;
  MeasureAgainstLimits(state, bench.limits, work, [&] {
    kernels::Attention(cache.layout, kHeads, 0, 0.125f, cache.keys.as<float>(),
                       cache.values.as<float>(), calls[turn++ % calls.size()], bench.threads);
  });
}

// One row each of n sequences that hold `context` tokens.
void DecodeBench(benchmark::State& state, const Bench& bench, int n_rows, int context) {
  const Cache cache;
  const std::vector<float> q = RandomFloats(n_rows * kWidth);
  std::vector<float> out(q.size());
  const int blocks_each = context / kernels::KvLayout::kBlockTokens;
  std::vector<std::vector<kernels::AttentionRow>> calls(kCacheBlocks / (blocks_each * n_rows));
  const int32_t* table = cache.blocks.data();
  for (auto& rows : calls) {
    for (int r = 0; r < n_rows; ++r, table += blocks_each) {
      rows.push_back({&q[r * kWidth], &out[r * kWidth], context - 1, table});
    }
  }
  Run(state, bench, cache, calls, static_cast<double>(n_rows) * context);
}

// A chunk of n rows of one sequence, from its beginning.
void PrefillBench(benchmark::State& state, const Bench& bench, int n_rows) {
  const Cache cache;
  const std::vector<float> q = RandomFloats(n_rows * kWidth);
  std::vector<float> out(q.size());
  std::vector<kernels::AttentionRow> rows;
  for (int r = 0; r < n_rows; ++r) {
    rows.push_back({&q[r * kWidth], &out[r * kWidth], r, cache.blocks.data()});
  }
  Run(state, bench, cache, {rows}, n_rows);
}

}  // namespace

void RegisterAttention(const Bench& bench) {
  for (int n_rows : {1, 4, 16}) {
    benchmark::RegisterBenchmark(absl::StrCat("attention/decode/rows:", n_rows).c_str(),
                                 DecodeBench, bench, n_rows, 1024)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
  for (int n_rows : {128, 512}) {
    benchmark::RegisterBenchmark(absl::StrCat("attention/prefill/rows:", n_rows).c_str(),
                                 PrefillBench, bench, n_rows)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace gatefold::bench

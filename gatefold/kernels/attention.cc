#include "gatefold/kernels/attention.h"

#include <algorithm>
#include <vector>

#include "gatefold/kernels/isa.h"

namespace gatefold::kernels {

void AppendKv(const KvLayout& layout, const float* key, const float* value, int position,
              const int32_t* block_table, float* keys, float* values) {
  constexpr int kTokens = KvLayout::kBlockTokens;
  const int64_t block = block_table[position / kTokens] * layout.BlockFloats();
  const int at = position % kTokens;
  for (int head = 0; head < layout.n_kv_heads; ++head) {
    float* k = keys + block + head * layout.HeadFloats();
    float* v = values + block + head * layout.HeadFloats() + at * layout.padded_dim();
    for (int d = 0; d < layout.head_dim; ++d) {
      k[d * kTokens + at] = key[head * layout.head_dim + d];
      v[d] = value[head * layout.head_dim + d];
    }
  }
}

namespace {

// Rows next to each other that share a block table, so that a tile reads each block once.
std::vector<int> TileStarts(absl::Span<const AttentionRow> rows, int rows_per_tile) {
  std::vector<int> starts;
  for (size_t i = 0; i < rows.size(); ++i) {
    const bool joins = !starts.empty() && rows[i].block_table == rows[i - 1].block_table &&
                       static_cast<int>(i) - starts.back() < rows_per_tile;
    if (!joins) starts.push_back(static_cast<int>(i));
  }
  starts.push_back(static_cast<int>(rows.size()));
  return starts;
}

}  // namespace

void Attention(const KvLayout& layout, int n_heads, int window, float scale, const float* keys,
               const float* values, absl::Span<const AttentionRow> rows, ThreadPool* threads) {
  constexpr int kMaxQueries = KernelTable::kMaxQueries;
  const int group = n_heads / layout.n_kv_heads;  // query heads per KV head
  const int rows_per_tile = std::max(1, kMaxQueries / group);
  const std::vector<int> starts = TileStarts(rows, rows_per_tile);
  const int64_t n_tiles = static_cast<int64_t>(starts.size()) - 1;
  const int64_t scratch_floats = kMaxQueries * layout.padded_dim();
  ParallelFor(threads, n_tiles * layout.n_kv_heads, 1, [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scratch;
    scratch.resize(std::max<size_t>(scratch.size(), scratch_floats));
    for (int64_t item = begin; item < end; ++item) {
      const int head = static_cast<int>(item / n_tiles);
      const int first_row = starts[item % n_tiles];
      const int end_row = starts[item % n_tiles + 1];
      const float* q[kMaxQueries];
      float* out[kMaxQueries];
      int positions[kMaxQueries];
      KernelTable::AttentionTile tile;
      tile.q = q;
      tile.out = out;
      tile.positions = positions;
      tile.head_dim = layout.head_dim;
      tile.window = window;
      tile.scale = scale;
      tile.keys = keys + head * layout.HeadFloats();
      tile.values = values + head * layout.HeadFloats();
      tile.block_stride = layout.BlockFloats();
      tile.block_table = rows[first_row].block_table;
      tile.scratch = scratch.data();
      int n = 0;
      // A group of more heads than a tile holds is cut too.
      for (int i = 0; i < (end_row - first_row) * group; ++i) {
        const AttentionRow& row = rows[first_row + i / group];
        const int64_t at = (static_cast<int64_t>(head) * group + i % group) * layout.head_dim;
        q[n] = row.q + at;
        out[n] = row.out + at;
        positions[n] = row.position;
        if (++n == kMaxQueries || i + 1 == (end_row - first_row) * group) {
          tile.n_queries = n;
          Kernels().attention_tile(tile);
          n = 0;
        }
      }
    }
  });
}

}  // namespace gatefold::kernels

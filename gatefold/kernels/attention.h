#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "gatefold/base/thread_pool.h"

namespace gatefold::kernels {

// How keys and values lie in a KV block of one layer. A block spans 16 positions.
//   keys:   [n_kv_heads, head_dim, 16 positions]   so that 16 scores come out of one vector
//   values: [n_kv_heads, 16 positions, padded]     padded: head_dim rounded up to 16
// Keys and values of a block have the same size; block b starts b * BlockFloats() floats into the
// layer's storage.
struct KvLayout {
  static constexpr int kBlockTokens = 16;
  int n_kv_heads = 0;
  int head_dim = 0;

  int64_t padded_dim() const { return (head_dim + 15) / 16 * 16; }
  int64_t HeadFloats() const { return padded_dim() * kBlockTokens; }
  int64_t BlockFloats() const { return HeadFloats() * n_kv_heads; }
};

// Writes one position's key and value, each [n_kv_heads, head_dim], to its place.
void AppendKv(const KvLayout& layout, const float* key, const float* value, int position,
              const int32_t* block_table, float* keys, float* values);

// One row: queries of all heads at one position of one sequence.
struct AttentionRow {
  const float* q = nullptr;  // [n_heads, head_dim]
  float* out = nullptr;      // [n_heads, head_dim]
  int position = 0;
  const int32_t* block_table = nullptr;  // block ids of its sequence
};

// out = softmax(scale q k, over keys of positions 0 to the row's own) v, for every row and head.
// Query head h reads KV head h / (n_heads / n_kv_heads). window w > 0: only the last w positions,
// the row's own included. Keys and values of the row itself have been appended.
// Each (row, head) adds in the order of absolute positions, whatever the other rows.
void Attention(const KvLayout& layout, int n_heads, int window, float scale, const float* keys,
               const float* values, absl::Span<const AttentionRow> rows, ThreadPool* threads);

}  // namespace gatefold::kernels

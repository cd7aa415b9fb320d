#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace gatefold::cuda {

// How the rows of a step are cut into pieces for the attention kernels. Host code without CUDA:
// one plan serves all layers of a step. A plan never shows in the results, only in the time.

struct AttentionShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int window = 0;   // 0: all positions
  float scale = 0;  // of the scores, > 0

  int group() const { return n_heads / n_kv_heads; }
  // head_dim 64 or 128, and 1 to 16 query heads per KV head.
  bool IsServed() const;
};

// Contexts are cut at absolute positions that are multiples of this; the parts of a row are
// computed apart and merged in ascending order.
inline constexpr int kChunkTokens = 256;

// Rows of a tile: (token, query head of the group) pairs of one sequence.
inline constexpr int kNarrowTileRows = 16;  // one warp
inline constexpr int kWideTileRows = 64;    // four warps

// What one thread block does for each KV head. All zero: nothing.
struct alignas(16) AttentionItem {
  int32_t first_row = 0;  // rows [first_row, first_row + n_rows) of the batch
  int32_t n_rows = 0;
  int32_t sequence = 0;
  int32_t min_position = 0;  // of these rows
  int32_t max_position = 0;
  int32_t first_chunk = 0;  // chunks [first_chunk, first_chunk + n_chunks)
  int32_t n_chunks = 0;
  int32_t split = 0;  // 1: each chunk's part goes to the workspace; 0: the rows end here
};
static_assert(sizeof(AttentionItem) == 32);

struct PlanSizes {
  int n_narrow = 0;
  int n_wide = 0;
  int n_combine = 0;
  int64_t n_slots = 0;
};

struct AttentionPlan {
  std::vector<AttentionItem> items;  // n_narrow narrow ones, then n_wide wide ones
  int n_narrow = 0;
  int n_wide = 0;
  // Parts of row r, chunk c lie in slot row_slots[r] + c of the workspace, if the row is split.
  std::vector<int32_t> row_slots;
  std::vector<int32_t> combine_rows;  // the split rows; -1: nothing
  int64_t n_slots = 0;

  // Grows to these sizes by items and rows of nothing, so that a captured graph can be replayed
  // with the plan of a later step of as many rows in the place of the first one's. False, and
  // nothing done, if the plan is larger already.
  bool PadTo(const PlanSizes& sizes);

  // Room for Pack: items, row_slots, combine_rows one after the other.
  size_t PackedBytes() const;
  void Pack(void* bytes) const;
};

struct PlanRow {
  int32_t position;
  int32_t sequence;  // row of the block tables
};

struct PlanLimits {
  int n_multiprocessors = 132;
  int64_t max_slots = 1 << 16;  // bounds the workspace; rows past it are not split
};

// Rows next to each other of one sequence share tiles. Positions are not negative.
AttentionPlan PlanAttention(const AttentionShape& shape, std::span<const PlanRow> rows,
                            const PlanLimits& limits = {});

// Bytes of workspace for n_slots: (head_dim + 2) floats per slot and query head.
size_t AttentionWorkspaceBytes(const AttentionShape& shape, int64_t n_slots);

}  // namespace gatefold::cuda

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace gatefold::cuda {

// How the rows of a step are given to the thread blocks of the attention kernels. Host code without
// CUDA: one plan serves all layers of a step. A plan never shows in the results, only in the time.

struct AttentionShape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int window = 0;   // 0: all positions
  float scale = 0;  // of the scores, > 0

  int group() const { return n_heads / n_kv_heads; }
  // head_dim 64 or 128, 1 to 16 query heads per KV head, fewer than 2^15 of those.
  bool IsServed() const;
};

// Contexts are cut at absolute positions that are multiples of this; the parts of a row are
// computed apart and merged in ascending order.
inline constexpr int kChunkTokens = 512;

enum class AttentionKernels {
  kAny,     // compute capability 8.0 and later
  kHopper,  // 9.0 alone
};

// A tile is some rows next to each other of one sequence; this many (row, query head of the group)
// pairs at most. Narrow ones are bound by reading the cache, wide ones by multiplying.
inline constexpr int kNarrowTilePairs = 16;
constexpr int WideTilePairs(AttentionKernels kernels) {
  return kernels == AttentionKernels::kHopper ? 192 : 64;
}

// A run of chunks for a tile's rows and one KV head. A worker, which is a thread block, takes
// several, one after another.
struct alignas(16) AttentionSegment {
  int32_t first_row = 0;  // rows [first_row, first_row + n_rows) of the batch
  int16_t n_rows = 0;
  int16_t kv_head = 0;
  int32_t sequence = 0;
  int32_t first_new = 0;     // least position of the sequence in the batch: those before are kept already
  int32_t min_position = 0;  // of these rows
  int32_t max_position = 0;
  int32_t first_chunk = 0;  // chunks [first_chunk, first_chunk + n_chunks)
  int32_t n_chunks = 0;
  // Of the same tile and KV head. 1: the rows end here. Else the first one leaves one part for each
  // row and head in the workspace, of all chunks before prefix_end, and the others leave one per
  // chunk; whoever finishes last merges them.
  int32_t n_segments = 0;
  int32_t counter = 0;  // which counts the finished
  int32_t prefix_end = 0;
  int32_t next = -1;  // of the same worker; -1: none
};
static_assert(sizeof(AttentionSegment) == 48);

struct AttentionPlan {
  AttentionKernels kernels = AttentionKernels::kAny;
  // Worker i starts with segment i: n_narrow workers of narrow tiles, then n_wide of wide ones.
  std::vector<AttentionSegment> segments;
  int n_narrow = 0;
  int n_wide = 0;
  int narrow_pairs = 8;  // or 16, if there are larger narrow tiles
  // Parts of row r, chunk c lie in slot row_slots[r] + c of the workspace, if the row is split.
  std::vector<int32_t> row_slots;
  int n_counters = 0;
  int64_t n_slots = 0;

  // Room for Pack: segments, row_slots, counters of zero, one after the other.
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
  AttentionKernels kernels = AttentionKernels::kAny;
};

// Rows next to each other of one sequence share tiles. Positions are not negative.
AttentionPlan PlanAttention(const AttentionShape& shape, std::span<const PlanRow> rows,
                            const PlanLimits& limits = {});

// Bytes of workspace for n_slots: (head_dim + 2) floats per slot and query head.
size_t AttentionWorkspaceBytes(const AttentionShape& shape, int64_t n_slots);

}  // namespace gatefold::cuda

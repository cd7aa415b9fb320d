#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "gatefold/cuda/attention_plan.h"
#include "gatefold/cuda/tiles.h"

namespace gatefold::cuda {

// The attention of one layer on the device: rotate q and k, keep k and v, attend.
//
// Pointers are device memory unless said otherwise, from cudaMalloc or offsets that keep 16-byte
// alignment. Launchers enqueue on `stream`, never wait and allocate nothing; they can be captured
// in a graph. Errors: cudaErrorInvalidValue for a shape this code does not serve (see
// AttentionShape::IsServed) or a null or misaligned pointer, before anything is enqueued; else
// what the launch returned. Positions, sequences and block ids are not checked on the device.
// Threads: safe, no state.
//
// A row's output depends on its q and on the keys and values of its own sequence's positions up
// to its own (within the window), bit for bit, whatever rows share the launch, however the plan
// tiles them. Keys and values must be finite; those of places never written may hold anything.

// Keys and values of one layer: [n_blocks, n_kv_heads, keys and values, head_dim / 64, 16 positions,
// 64] bf16, so that all of a head's 16 positions is 4 or 8 KiB in a row; the 128 bytes of a position
// as tiles.h says, which lets kernels copy them to shared memory as they lie.
struct KvCacheLayout {
  static constexpr int kBlockTokens = 16;
  int n_kv_heads = 0;
  int head_dim = 0;
  int64_t BlockElements() const { return HeadElements() * n_kv_heads; }
  int64_t HeadElements() const { return 2 * ValuesAt(); }
  int64_t ValuesAt() const { return int64_t{kBlockTokens} * head_dim; }  // behind the keys
  // Of a head's keys in a block, or of its values, where that of a position is.
  GATEFOLD_HOST_DEVICE static constexpr int64_t Place(int token, int dim) {
    return dim / 64 * (kBlockTokens * 64) + SwizzledOffset(token, dim % 64) / 2;
  }
};

// Rows of a step, on the device.
struct RowBatch {
  int n_rows = 0;
  const int32_t* positions = nullptr;     // [n_rows]
  const int32_t* sequences = nullptr;     // [n_rows] row of block_tables
  const int32_t* block_tables = nullptr;  // [n_sequences, table_stride] block ids
  int table_stride = 0;                   // a multiple of 4; the base is aligned to 16 bytes
};

// Cosines and sines of positions, attention factor included.
struct RopeTables {
  const float* cos = nullptr;  // [n_positions, head_dim / 2]
  const float* sin = nullptr;  // [n_positions, head_dim / 2]
};

// Turns the pairs (x[i], x[i + head_dim / 2]) of q and k by the angles of the row's position, in
// float32 with the CPU's roundings, then rounds to bf16: q to `q`, k and v to the row's place in
// the cache. A head's values of which some are no numbers as bf16 are kept as zeros, their keys as NaN:
// so that all who read the position have NaN, and nobody else. No two rows of a batch are the same
// position of the same sequence.
// qkv: row r starts r * qkv_stride floats in: q [n_heads, head_dim], then k and v, each
// [n_kv_heads, head_dim]. q: [n_rows, n_heads, head_dim] bf16, out.
cudaError_t RopeAppend(const AttentionShape& shape, const RowBatch& rows, const float* qkv,
                       int64_t qkv_stride, const RopeTables& rope, __nv_bfloat16* q,
                       __nv_bfloat16* kv, cudaStream_t stream);

// Where a plan lies on the device, and the room it works in. Of one stream: kernels count in it.
struct DevicePlan {
  AttentionKernels kernels = AttentionKernels::kAny;
  const AttentionSegment* segments = nullptr;
  int n_narrow = 0;
  int n_wide = 0;
  int narrow_pairs = 8;
  const int32_t* row_slots = nullptr;  // [n_rows]
  int32_t* counters = nullptr;         // zero before and after
  float* workspace = nullptr;          // AttentionWorkspaceBytes(shape, n_slots) bytes
  int64_t n_slots = 0;
};

// `packed`: device copy of what AttentionPlan::Pack wrote; aligned to 16 bytes.
DevicePlan ViewPlan(const AttentionPlan& plan, void* packed, void* workspace);

// The best kernels of the current device. The others give the same bits.
cudaError_t ChooseAttentionKernels(AttentionKernels* kernels);

// out = softmax(scale q k, over keys of positions 0 to the row's own) v for every row and head;
// window w > 0: only the last w positions, the row's own included. Query head h reads KV head
// h / (n_heads / n_kv_heads). Keys and values of the rows themselves have been appended. Those of
// positions before a sequence's first row may be read while kernels before this one still run: after
// what wrote them came something else in the stream, or a wait of the host. A step's upload does.
// q: [n_rows, n_heads, head_dim] bf16. The plan was made for these rows in this order, and lay on
// the device before the last kernel of the stream began. One of these is given, the other null:
// out, float32 [n_rows, n_heads, head_dim]; activations, the same in bf16 as a product over n_heads *
// head_dim inputs reads them (ActivationBytes; what is padding there is not written).
cudaError_t Attention(const AttentionShape& shape, const RowBatch& rows, const DevicePlan& plan,
                      const __nv_bfloat16* q, const __nv_bfloat16* kv, float* out,
                      void* activations, cudaStream_t stream);

}  // namespace gatefold::cuda

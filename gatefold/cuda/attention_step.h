#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "gatefold/cuda/attention.h"
#include "gatefold/cuda/attention_weights.h"
#include "gatefold/cuda/device_memory.h"
#include "gatefold/cuda/grouped_matmul.h"

namespace gatefold::cuda {

// Positions [first_position, first_position + n_rows) of one sequence. Host memory.
struct SequenceRows {
  const int32_t* block_table = nullptr;  // block ids of the positions up to the last of these
  int first_position = 0;
  int n_rows = 0;
};

// The rows of a step on the device, and what all layers need to know of them: positions, block
// tables, the plan of attention, the groups of the products. Sent in one copy, used by every layer.
// Threads: one at a time, and uploads and uses on one stream.
class AttentionStep {
 public:
  AttentionStep() = default;
  ~AttentionStep();
  AttentionStep(const AttentionStep&) = delete;
  AttentionStep& operator=(const AttentionStep&) = delete;

  // Rows of the batch are those of the sequences, one after another. No position of a sequence
  // comes twice. token_ids: [n_rows], within the vocabulary; null where nothing is embedded.
  // Asynchronous on `stream`, except that it waits for the upload before it to leave host memory.
  // cudaErrorInvalidValue: no rows, or positions outside [0, max_positions).
  cudaError_t Upload(const AttentionWeights& weights, std::span<const SequenceRows> sequences,
                     const int32_t* token_ids, const PlanLimits& limits, cudaStream_t stream);

  int n_rows() const { return batch_.n_rows; }
  // Below: device memory.
  const RowBatch& batch() const { return batch_; }
  const DevicePlan& plan() const { return plan_; }  // without workspace
  const int32_t* token_ids() const { return token_ids_; }
  const MatMulGroup* qkv_group(int layer) const { return groups_ + 2 * layer; }
  const MatMulGroup* o_group(int layer) const { return groups_ + 2 * layer + 1; }

 private:
  // Room for `bytes` on the host, free to be written, and on the device.
  cudaError_t Reserve(size_t bytes);

  RowBatch batch_;
  DevicePlan plan_;
  const int32_t* token_ids_ = nullptr;
  const MatMulGroup* groups_ = nullptr;

  char* host_ = nullptr;  // pinned
  size_t host_bytes_ = 0;
  DeviceMemory device_;
  cudaEvent_t sent_ = nullptr;
};

}  // namespace gatefold::cuda

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "attention-service/kv_block_pool.h"
#include "gatefold/base/host_memory.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/checkpoint/load_progress.h"
#include "gatefold/model/model_weights.h"

namespace gatefold {

class CudaStream;  // gatefold/device/row_transfer.h

// One row of a step: a position of a sequence, whose block table reaches it.
struct AttentionRow {
  int position = 0;
  const BlockId* block_table = nullptr;
};

// How a token is drawn from a row's logits as they are: see SamplingParams.
struct PlainDraw {
  uint64_t seed = 0;
  int position = 0;  // of the row; the token that is drawn gets position + 1
  float temperature = 1;
  int top_k = 0;
  float top_p = 1;
  float min_p = 0;
};
struct DrawnToken {
  int32_t token = -1;
  int32_t argmax = -1;
  bool not_a_number = false;  // some logits are NaN
};

// Where the attention side of a model is kept and computed, KV cache included: on the CPU, or on a
// CUDA device. Who calls it has checked rows and token ids; bits are equal between backends of one
// numerics class, and obey the row law.
// Threads: one call at a time.
class AttentionBackend {
 public:
  static constexpr int kMaxLogitRows = 32;  // of a call: a vocabulary is wide

  virtual ~AttentionBackend() = default;

  virtual std::string name() const = 0;    // "cpu" or "cuda"
  virtual std::string device() const = 0;  // for people: the instruction set, or the device's name
  // Of what this backend computes; see NumericsClass() in gatefold/kernels/isa.h.
  virtual uint64_t numerics_class() const = 0;
  // Time the device has computed since the start, without copies to and from it; 0 where there is
  // none. Threads: safe.
  virtual double device_seconds() const { return 0; }
  // For rows on their way in and out: calls take and put them there without a copy in between.
  virtual HostMemory row_memory() const { return HeapMemory(); }
  // How it keeps KV blocks.
  virtual KvShape kv_shape() const = 0;
  // The memory there is where it keeps them: of the machine, or what was free of the device's.
  virtual size_t memory_bytes() const = 0;

  // Copies the weights out of the checkpoint and makes room for the KV blocks; once, before what
  // follows. `max_positions`: of a sequence. `progress` may be null.
  // Errors: ResourceExhausted (the device's memory), Unavailable (the device failed).
  virtual absl::Status Load(int n_kv_blocks, int max_positions, LoadProgress* progress) = 0;

  // Rows of a sequence are next to each other, in ascending order; no position of one comes twice.
  // Errors of all three: Unavailable (the device failed, or has no memory left).
  //
  // The token ids' embeddings after attention of layer 0. x: [n_rows, d_model], out.
  virtual absl::Status EmbedAndAttend(absl::Span<const AttentionRow> rows,
                                      absl::Span<const int32_t> token_ids, float* x) = 0;
  // x: [n_rows, d_model], in and out.
  virtual absl::Status Attend(int layer, absl::Span<const AttentionRow> rows, float* x) = 0;
  // x: [*, d_model], after the last layer, of which those rows count: at most kMaxLogitRows.
  // logits: [rows.size(), vocab_size], out, in host memory.
  virtual absl::Status Logits(const float* x, absl::Span<const int32_t> rows, float* logits) = 0;

  // Whether tokens are drawn where the logits are, which need not be fetched then.
  virtual bool draws() const { return false; }
  // If it draws: a token for each of those rows of x: [*, d_model], after the last layer. draws,
  // drawn (out, host memory): [rows.size()]. A row's token is the sampler's (sampler.h) but for
  // weights that are rounded otherwise, which shows where one falls on the border of a cut or of a
  // draw.
  virtual absl::Status Draw(const float* /*x*/, absl::Span<const int32_t> /*rows*/,
                            absl::Span<const PlainDraw> /*draws*/, DrawnToken* /*drawn*/) {
    return absl::UnimplementedError("this backend draws no tokens");
  }

  // The stream of the backend's device; null: there is none.
  virtual CudaStream* device_stream() { return nullptr; }
  // From now on x of all calls is memory of that device: calls put their work on the stream, and
  // wait for it where they bring something to the host or where memory grows. Before the first
  // call, if ever. max_rows: of a call, for which there is memory from now on. Errors:
  // ResourceExhausted (there is none; all is as before).
  virtual absl::Status KeepRowsOnDevice(int /*max_rows*/) {
    return absl::FailedPreconditionError("this backend has no device");
  }
};

// Both outlive the backend.
std::unique_ptr<AttentionBackend> MakeCpuAttentionBackend(const ModelWeights* weights,
                                                          ThreadPool* threads);

// On the first CUDA device; the weights outlive it. NotFound: this build has no CUDA, or there is
// no device. FailedPrecondition: it is too old, it has no room for the weights and so much KV
// cache, or the model is of a type or shape that it does not compute. Both say why.
absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCudaAttentionBackend(
    const ModelWeights* weights, size_t kv_memory_bytes = 0);

// "cpu", "cuda", or "auto": CUDA where it can be had. Logs what was chosen and why.
// InvalidArgument for another name; FailedPrecondition if "cuda" cannot be had.
absl::StatusOr<std::unique_ptr<AttentionBackend>> ChooseAttentionBackend(
    absl::string_view name, const ModelWeights* weights, ThreadPool* threads,
    size_t kv_memory_bytes = 0);

}  // namespace gatefold

#pragma once

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "attention-service/attention_backend.h"
#include "attention-service/sequence_table.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/engine/step.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {

// Computes everything that is bound to a sequence or to the vocabulary. Knows no gRPC. Rows lie
// where the backend takes them (AttentionBackend::KeepRowsOnDevice).
// Arguments are checked against the sequences and the model before anything changes:
// kInvalidArgument (a caller's mistake), kAborted (a sequence is not here).
// kUnavailable: the backend failed.
// Threads: safe; computations of several lanes take turns, since each uses the whole backend.
class AttentionRunner {
 public:
  // All of them outlive the runner; the backend is loaded. Sequences' tables are of the same cache,
  // whose blocks are those of the backend. The threads sample what the backend does not.
  AttentionRunner(const ModelConfig* config, AttentionBackend* backend, PrefixCache* cache,
                  ThreadPool* threads)
      : config_(*config), backend_(backend), cache_(cache), threads_(threads) {}

  // x: [n_rows, d_model], out. kResourceExhausted: nothing is computed, for want of KV blocks for
  // the `starved` sequences; the others have taken theirs, in the order of the spans.
  absl::Status EmbedAndAttend(SequenceTable* sequences, absl::Span<const StepSpan> spans,
                              absl::Span<const int32_t> token_ids, float* x,
                              std::vector<SequenceId>* starved);

  // x: [n_rows, d_model], in and out.
  absl::Status Attend(SequenceTable* sequences, int layer, absl::Span<const StepSpan> spans,
                      float* x);

  // x: [samples.size(), d_model]. Row numbers of the samples are not looked at.
  absl::StatusOr<std::vector<Sampled>> Sample(SequenceTable* sequences,
                                              absl::Span<const SampleRequest> samples,
                                              const float* x);

  const ModelConfig& config() const { return config_; }
  PrefixCache* cache() const { return cache_; }

 private:
  // The sequences of the spans, whose positions are within reach and keep what others may share.
  absl::StatusOr<std::vector<CachedSequence*>> FindToEmbed(
      SequenceTable* sequences, absl::Span<const StepSpan> spans,
      absl::Span<const int32_t> token_ids) const;
  // Samples `which` on the backend: their tokens.
  absl::Status DrawOnBackend(absl::Span<const CachedSequence* const> sequences,
                             absl::Span<const SampleRequest> samples,
                             absl::Span<const int32_t> which, const float* x,
                             std::vector<Sampled>* sampled)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(compute_mu_);
  // Samples `which` by their logits; those that have a token keep it.
  absl::Status LookAtLogits(absl::Span<const CachedSequence* const> sequences,
                            absl::Span<const SampleRequest> samples,
                            absl::Span<const int32_t> which, const float* x,
                            std::vector<Sampled>* sampled)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(compute_mu_);
  // token: -1, or what was drawn.
  Sampled SampleRow(const CachedSequence& sequence, const SampleRequest& request,
                    absl::Span<const float> logits, int32_t token) const;

  const ModelConfig& config_;
  AttentionBackend* const backend_;
  PrefixCache* const cache_;
  ThreadPool* const threads_;

  absl::Mutex compute_mu_;
  Buffer logits_ ABSL_GUARDED_BY(compute_mu_);  // [kMaxLogitRows, vocab_size]
};

}  // namespace gatefold

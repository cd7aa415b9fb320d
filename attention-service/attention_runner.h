#pragma once

#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "attention-service/attention_model.h"
#include "attention-service/sequence_table.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// Computes everything that is bound to a sequence or to the vocabulary. Knows no gRPC.
// Arguments are checked against the sequences and the model before anything changes:
// kInvalidArgument (a caller's mistake), kAborted (a sequence is not here).
// Threads: safe; computations of several lanes take turns, since each uses the whole pool.
class AttentionRunner {
 public:
  // Model, cache and threads outlive the runner. Sequences' tables are of the same cache.
  AttentionRunner(const AttentionModel* model, PrefixCache* cache, ThreadPool* threads)
      : model_(model), cache_(cache), kv_(cache->pool()), threads_(threads) {}

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

  const AttentionModel& model() const { return *model_; }
  PrefixCache* cache() const { return cache_; }

 private:
  struct Row {
    int position;
    const BlockId* block_table;
  };

  // The sequences of the spans, whose positions are within reach and keep what others may share.
  absl::StatusOr<std::vector<CachedSequence*>> FindToEmbed(
      SequenceTable* sequences, absl::Span<const StepSpan> spans,
      absl::Span<const int32_t> token_ids) const;
  void AttendRows(int layer, absl::Span<const Row> rows, float* x);
  // Positions of q and k are turned, keys and values kept.
  void RotateAndAppend(int layer, absl::Span<const Row> rows)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(compute_mu_);
  void Reserve(size_t n_rows) ABSL_EXCLUSIVE_LOCKS_REQUIRED(compute_mu_);
  Sampled SampleRow(const CachedSequence& sequence, const SampleRequest& request,
                    absl::Span<const float> logits) const;

  const AttentionModel* const model_;
  PrefixCache* const cache_;
  KvBlockPool* const kv_;
  ThreadPool* const threads_;

  absl::Mutex compute_mu_;
  size_t capacity_rows_ ABSL_GUARDED_BY(compute_mu_) = 0;
  Buffer h_ ABSL_GUARDED_BY(compute_mu_);       // [rows, d_model] normalised, then projected
  Buffer qkv_ ABSL_GUARDED_BY(compute_mu_);     // [rows, (n_heads + 2 n_kv_heads) * head_dim]
  Buffer heads_ ABSL_GUARDED_BY(compute_mu_);   // [rows, n_heads * head_dim] attention's output
  Buffer logits_ ABSL_GUARDED_BY(compute_mu_);  // [some rows, vocab_size]
};

}  // namespace gatefold

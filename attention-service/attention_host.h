#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "attention-service/attention_backend.h"
#include "attention-service/attention_runner.h"
#include "attention-service/kv_block_pool.h"
#include "attention-service/prefix_cache.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/checkpoint/load_progress.h"
#include "gatefold/model/model_weights.h"

namespace gatefold {

struct AttentionHostOptions {
  std::string backend = "cpu";  // where attention is computed: auto, cpu or cuda
  size_t kv_memory_bytes = size_t{1} << 30;
  // Positions one sequence may have; 0: the model's. Less where the KV memory holds fewer.
  int max_sequence_tokens = 0;
  bool prefix_cache = true;  // keeps KV blocks of sequences that ended, for others that begin alike
};

// Everything that computes attention, loaded and ready: what an attention-service, a colocated
// router and a local process each have one of.
class AttentionHost {
 public:
  // Weights and threads outlive the host; `progress` may be null. Errors: those of
  // ChooseAttentionBackend, AttentionBackend::Load and KvBlockPool::Create.
  static absl::StatusOr<std::unique_ptr<AttentionHost>> Load(const ModelWeights& weights,
                                                             const AttentionHostOptions& options,
                                                             ThreadPool* threads,
                                                             LoadProgress* progress);

  AttentionRunner* runner() { return &runner_; }
  PrefixCache* cache() { return &cache_; }
  const AttentionBackend& backend() const { return *backend_; }
  AttentionBackend& backend() { return *backend_; }
  int max_sequence_tokens() const { return max_sequence_tokens_; }

 private:
  AttentionHost(const ModelConfig* config, std::unique_ptr<AttentionBackend> backend,
                std::unique_ptr<KvBlockPool> kv, bool prefix_cache, int max_sequence_tokens,
                ThreadPool* threads)
      : backend_(std::move(backend)),
        kv_(std::move(kv)),
        cache_(kv_.get(), {.enabled = prefix_cache}),
        max_sequence_tokens_(max_sequence_tokens),
        runner_(config, backend_.get(), &cache_, threads) {}

  const std::unique_ptr<AttentionBackend> backend_;
  const std::unique_ptr<KvBlockPool> kv_;
  PrefixCache cache_;
  const int max_sequence_tokens_;
  AttentionRunner runner_;
};

}  // namespace gatefold

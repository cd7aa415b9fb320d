#include "attention-service/attention_host.h"

#include <algorithm>
#include <utility>

#include "gatefold/base/status_macros.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AttentionHost>> AttentionHost::Load(
    const ModelWeights& weights, const AttentionHostOptions& options, ThreadPool* threads,
    LoadProgress* progress) {
  const ModelConfig& config = weights.config();
  GF_ASSIGN_OR_RETURN(auto backend, ChooseAttentionBackend(options.backend, &weights, threads,
                                                           options.kv_memory_bytes));
  GF_ASSIGN_OR_RETURN(auto kv, KvBlockPool::Create(backend->kv_shape(), options.kv_memory_bytes,
                                                   backend->memory_bytes()));
  int64_t max_tokens = static_cast<int64_t>(kv->n_blocks()) * KvShape::kBlockTokens;
  max_tokens = std::min<int64_t>(max_tokens, config.max_positions);
  if (options.max_sequence_tokens > 0) {
    max_tokens = std::min<int64_t>(max_tokens, options.max_sequence_tokens);
  }
  GF_RETURN_IF_ERROR(backend->Load(kv->n_blocks(), static_cast<int>(max_tokens), progress));
  return std::unique_ptr<AttentionHost>(new AttentionHost(&config, std::move(backend),
                                                          std::move(kv), options.prefix_cache,
                                                          static_cast<int>(max_tokens), threads));
}

}  // namespace gatefold

#include "attention-service/attention_host.h"

#include <algorithm>
#include <utility>

#include "gatefold/base/status_macros.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AttentionHost>> AttentionHost::Load(
    const ModelWeights& weights, const AttentionHostOptions& options, ThreadPool* threads,
    LoadProgress* progress) {
  const ModelConfig& config = weights.config();
  const KvShape shape = {config.n_layers,
                         {.n_kv_heads = config.n_kv_heads, .head_dim = config.head_dim}};
  GF_ASSIGN_OR_RETURN(auto kv, KvBlockPool::Create(shape, options.kv_memory_bytes));
  int64_t max_tokens = static_cast<int64_t>(kv->n_blocks()) * KvShape::kBlockTokens;
  max_tokens = std::min<int64_t>(max_tokens, config.max_positions);
  if (options.max_sequence_tokens > 0) {
    max_tokens = std::min<int64_t>(max_tokens, options.max_sequence_tokens);
  }
  auto model = AttentionModel::Load(weights, static_cast<int>(max_tokens), threads, progress);
  return std::unique_ptr<AttentionHost>(
      new AttentionHost(std::move(kv), options.prefix_cache, std::move(model),
                        static_cast<int>(max_tokens), threads));
}

}  // namespace gatefold

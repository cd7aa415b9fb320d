#include "attention-service/attention_backend.h"

#include "gatefold/engine/backend_choice.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AttentionBackend>> ChooseAttentionBackend(
    absl::string_view name, const ModelWeights* weights, ThreadPool* threads,
    size_t kv_memory_bytes) {
  return ChooseBackend<AttentionBackend>(
      name, [&] { return MakeCudaAttentionBackend(weights, kv_memory_bytes); },
      [&] { return MakeCpuAttentionBackend(weights, threads); });
}

}  // namespace gatefold

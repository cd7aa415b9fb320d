#include "attention-service/attention_backend.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AttentionBackend>> MakeCudaAttentionBackend(
    const ModelWeights* /*weights*/, size_t /*kv_memory_bytes*/) {
  return absl::NotFoundError("this build has no CUDA (GATEFOLD_WITH_CUDA)");
}

}  // namespace gatefold

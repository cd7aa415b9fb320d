#include "expert-service/expert_backend.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<ExpertBackend>> MakeCudaExpertBackend(
    const ExpertBackendOptions& /*options*/) {
  return absl::NotFoundError("this build has no CUDA (GATEFOLD_WITH_CUDA)");
}

}  // namespace gatefold

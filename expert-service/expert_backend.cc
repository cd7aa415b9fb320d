#include "expert-service/expert_backend.h"

#include "absl/strings/str_cat.h"
#include "gatefold/engine/backend_choice.h"

namespace gatefold {

absl::StatusOr<WeightKind> ParseWeightKind(absl::string_view name) {
  if (name == "checkpoint") return WeightKind::kCheckpoint;
  if (name == "int8") return WeightKind::kInt8;
  if (name == "int4") return WeightKind::kInt4;
  return absl::InvalidArgumentError(
      absl::StrCat("--weights is \"", name, "\", must be checkpoint, int8 or int4"));
}

absl::StatusOr<std::unique_ptr<ExpertBackend>> ChooseExpertBackend(
    const ExpertBackendOptions& options, ThreadPool* threads) {
  return ChooseBackend<ExpertBackend>(
      options.name, [&] { return MakeCudaExpertBackend(options); },
      [&] { return MakeCpuExpertBackend(threads, options); });
}

}  // namespace gatefold

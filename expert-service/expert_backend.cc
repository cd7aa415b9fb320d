#include "expert-service/expert_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/log.h"

namespace gatefold {

absl::StatusOr<WeightKind> ParseWeightKind(absl::string_view name) {
  if (name == "checkpoint") return WeightKind::kCheckpoint;
  if (name == "int8") return WeightKind::kInt8;
  if (name == "int4") return WeightKind::kInt4;
  return absl::InvalidArgumentError(
      absl::StrCat("--weights is \"", name, "\", must be checkpoint, int8 or int4"));
}

absl::StatusOr<std::unique_ptr<ExpertBackend>> ChooseExpertBackend(const ExpertBackendOptions& options,
                                                                   ThreadPool* threads) {
  const std::string& name = options.name;
  if (name != "auto" && name != "cpu" && name != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("backend is \"", name, "\", must be auto, cpu or cuda"));
  }
  std::unique_ptr<ExpertBackend> chosen;
  std::string reason = "asked for";
  if (name != "cpu") {
    absl::StatusOr<std::unique_ptr<ExpertBackend>> cuda = MakeCudaExpertBackend(options);
    if (cuda.ok()) {
      chosen = *std::move(cuda);
    } else if (name == "cuda") {
      return cuda.status();
    } else {
      reason = std::string(cuda.status().message());
    }
  }
  if (chosen == nullptr) chosen = MakeCpuExpertBackend(threads, options);
  LogEvent(LogLevel::kInfo, "backend",
           {{"backend", chosen->name()}, {"device", chosen->device()}, {"because", reason}});
  return chosen;
}

}  // namespace gatefold

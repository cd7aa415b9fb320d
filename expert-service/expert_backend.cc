#include "expert-service/expert_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/log.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<ExpertBackend>> ChooseExpertBackend(absl::string_view name,
                                                                   DType dtype, int64_t d_model,
                                                                   ThreadPool* threads) {
  if (name != "auto" && name != "cpu" && name != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("backend is \"", name, "\", must be auto, cpu or cuda"));
  }
  std::unique_ptr<ExpertBackend> chosen;
  std::string reason = "asked for";
  if (name != "cpu") {
    absl::StatusOr<std::unique_ptr<ExpertBackend>> cuda = MakeCudaExpertBackend(dtype, d_model);
    if (cuda.ok()) {
      chosen = *std::move(cuda);
    } else if (name == "cuda") {
      return cuda.status();
    } else {
      reason = std::string(cuda.status().message());
    }
  }
  if (chosen == nullptr) chosen = MakeCpuExpertBackend(threads);
  LogEvent(LogLevel::kInfo, "backend",
           {{"backend", chosen->name()}, {"device", chosen->device()}, {"because", reason}});
  return chosen;
}

}  // namespace gatefold

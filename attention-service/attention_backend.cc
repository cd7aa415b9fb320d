#include "attention-service/attention_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/log.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AttentionBackend>> ChooseAttentionBackend(
    absl::string_view name, const ModelWeights* weights, ThreadPool* threads) {
  if (name != "auto" && name != "cpu" && name != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("backend is \"", name, "\", must be auto, cpu or cuda"));
  }
  std::unique_ptr<AttentionBackend> chosen;
  std::string reason = "asked for";
  if (name != "cpu") {
    absl::StatusOr<std::unique_ptr<AttentionBackend>> cuda = MakeCudaAttentionBackend(weights);
    if (cuda.ok()) {
      chosen = *std::move(cuda);
    } else if (name == "cuda") {
      return cuda.status();
    } else {
      reason = std::string(cuda.status().message());
    }
  }
  if (chosen == nullptr) chosen = MakeCpuAttentionBackend(weights, threads);
  LogEvent(LogLevel::kInfo, "backend",
           {{"backend", chosen->name()}, {"device", chosen->device()}, {"because", reason}});
  return chosen;
}

}  // namespace gatefold

#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gatefold/base/log.h"

namespace gatefold {

// "cpu", "cuda", or "auto": CUDA where it can be had. `make_cuda` gives a backend or says why there
// is none, `make_cpu` gives one. Logs what was chosen and why: as a warning, where there is a
// device (its error is not NotFound) and "auto" could not have it. Errors: InvalidArgument for
// another name; for "cuda" those of `make_cuda`, with FailedPrecondition for NotFound.
template <typename Backend, typename MakeCuda, typename MakeCpu>
absl::StatusOr<std::unique_ptr<Backend>> ChooseBackend(absl::string_view name, MakeCuda make_cuda,
                                                       MakeCpu make_cpu) {
  if (name != "auto" && name != "cpu" && name != "cuda") {
    return absl::InvalidArgumentError(
        absl::StrCat("backend is \"", name, "\", must be auto, cpu or cuda"));
  }
  std::unique_ptr<Backend> chosen;
  std::string reason = "asked for";
  LogLevel level = LogLevel::kInfo;
  if (name != "cpu") {
    absl::StatusOr<std::unique_ptr<Backend>> cuda = make_cuda();
    if (cuda.ok()) {
      chosen = *std::move(cuda);
    } else if (name == "cuda") {
      // NotFound would be taken for a model that is not there.
      if (!absl::IsNotFound(cuda.status())) return cuda.status();
      return absl::FailedPreconditionError(cuda.status().message());
    } else {
      reason = std::string(cuda.status().message());
      if (!absl::IsNotFound(cuda.status())) level = LogLevel::kWarning;
    }
  }
  if (chosen == nullptr) chosen = make_cpu();
  LogEvent(level, "backend",
           {{"backend", chosen->name()}, {"device", chosen->device()}, {"because", reason}});
  return chosen;
}

}  // namespace gatefold

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gatefold::cli {

enum ExitCode { kExitOk = 0, kExitFailed = 1, kExitUsage = 2, kExitInterrupted = 130 };

// The command was called in a wrong way; exit code 2.
absl::Status UsageError(absl::string_view message);
bool IsUsageError(const absl::Status& status);

// Adds what the user can do about it, unless the status says so already.
absl::Status WithNextStep(absl::Status status, absl::string_view next_step);

// What opening the model folder `dir` said, with the flag it came from.
absl::Status ModelFolderError(const std::string& dir, const absl::Status& status);

// "gatefold VERB: what is wrong", and a line with what to do next where something can be done.
// `status` is not OK.
std::string DescribeError(absl::string_view verb, const absl::Status& status);

}  // namespace gatefold::cli

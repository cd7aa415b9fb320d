#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/eval/evaluation.h"
#include "cli/flag_set.h"

namespace gatefold::cli {

// What a model's quality is measured on: texts from the arguments, questions from flags.
struct EvaluationInputFlags {
  std::vector<std::string> tasks;
  std::vector<std::string> equations;
  std::string separator = "<|end|>";
  int limit = 0;

  void AddTo(FlagSet* flags);
  // Reads all files; `paths` are the verb's arguments. A usage error for a negative limit.
  absl::StatusOr<EvaluationInput> Read(const std::vector<std::string>& paths) const;
};

}  // namespace gatefold::cli

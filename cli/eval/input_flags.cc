#include "cli/eval/input_flags.h"

#include "absl/strings/str_cat.h"
#include "cli/error_report.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {

void EvaluationInputFlags::AddTo(FlagSet* flags) {
  flags->Add("tasks", "FILE", "questions as JSON lines; can be given several times", &tasks);
  flags->Add("equations", "FILE",
             "lines such as \"37 + 45 = 82\": the model must write what comes after \"=\"",
             &equations);
  flags->Add("limit", "N", "at most so many questions of each file (default: all)", &limit);
  flags->Add("separator", "TEXT",
             "a line with nothing else ends a document (default <|end|>; \"\": none does)",
             &separator);
}

absl::StatusOr<EvaluationInput> EvaluationInputFlags::Read(
    const std::vector<std::string>& paths) const {
  if (limit < 0) return UsageError(absl::StrCat("--limit is ", limit, ", must not be negative"));
  EvaluationInput input;
  if (!paths.empty()) {
    GF_ASSIGN_OR_RETURN(input.texts, ReadTaggedTexts(paths, separator));
  }
  const auto add = [&](std::vector<TaskItem> items) {
    if (limit > 0 && items.size() > static_cast<size_t>(limit)) items.resize(limit);
    input.tasks.insert(input.tasks.end(), items.begin(), items.end());
  };
  for (const std::string& file : tasks) {
    GF_ASSIGN_OR_RETURN(std::vector<TaskItem> items, ReadTasks(file));
    add(std::move(items));
  }
  for (const std::string& file : equations) {
    GF_ASSIGN_OR_RETURN(std::vector<TaskItem> items, ReadEquations(file));
    add(std::move(items));
  }
  return input;
}

}  // namespace gatefold::cli

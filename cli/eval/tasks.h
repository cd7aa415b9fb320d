#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gatefold::cli {

// One question. With choices the likeliest one counts as the model's; without, what it writes.
struct TaskItem {
  std::string tag;
  std::string question;
  std::vector<std::string> choices;
  size_t answer_index = 0;  // into choices
  std::string answer;       // the text of the right one, or of the right line
  std::string where;        // file and line, for errors
};

// A JSONL file, an object per line: question; answer, the text or the index of a choice; and, where
// there are some, choices (2 to 64) and tag (default: the file's name).
// Errors name the file, the line and the field.
absl::StatusOr<std::vector<TaskItem>> ReadTasks(const std::string& path);

// A text file of equations such as "37 + 45 = 82", one per line: each is a question that ends in
// "=". Other lines are left out. The tag tells the operation and the digits of the longer operand:
// "2-digit +".
absl::StatusOr<std::vector<TaskItem>> ReadEquations(const std::string& path);

}  // namespace gatefold::cli

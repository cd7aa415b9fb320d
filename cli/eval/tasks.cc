#include "cli/eval/tasks.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/prompt_flags.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"
#include "nlohmann/json.hpp"

namespace gatefold::cli {
namespace {

using nlohmann::json;

constexpr size_t kMaxChoices = 64;

absl::StatusOr<std::vector<std::string>> ReadLines(const std::string& path) {
  std::error_code error;
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  }
  GF_ASSIGN_OR_RETURN(const std::string text, ReadAll(file, path));
  return std::vector<std::string>(absl::StrSplit(text, '\n'));
}

std::string Stem(const std::string& path) { return std::filesystem::path(path).stem().string(); }

// The string `field` of an object; an error says what is wrong with it.
absl::StatusOr<std::string> StringField(const json& object, const char* field) {
  const auto it = object.find(field);
  if (it == object.end()) return absl::InvalidArgumentError(absl::StrCat(field, " is missing"));
  if (!it->is_string() || it->get_ref<const std::string&>().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(field, " must be a string that is not empty"));
  }
  return it->get<std::string>();
}

absl::Status ReadChoices(const json& object, TaskItem* item) {
  const json& choices = object["choices"];
  if (!choices.is_array() || choices.size() < 2 || choices.size() > kMaxChoices) {
    return absl::InvalidArgumentError(
        absl::StrCat("choices must be a list of 2 to ", kMaxChoices, " strings"));
  }
  for (const json& choice : choices) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty()) {
      return absl::InvalidArgumentError("choices must be strings that are not empty");
    }
    item->choices.push_back(choice.get<std::string>());
    if (std::count(item->choices.begin(), item->choices.end(), item->choices.back()) > 1) {
      return absl::InvalidArgumentError("choices has the same one twice");
    }
  }
  const json answer = object.value("answer", json());
  if (answer.is_number_integer()) {
    if (answer < 0 || answer >= item->choices.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("answer is ", answer.dump(), ", must be 0 to ", item->choices.size() - 1));
    }
    item->answer_index = answer.get<size_t>();
  } else if (!answer.is_null() && !answer.is_string()) {
    return absl::InvalidArgumentError("answer must be one of the choices, or its index");
  } else {
    GF_ASSIGN_OR_RETURN(const std::string text, StringField(object, "answer"));
    const auto found = std::find(item->choices.begin(), item->choices.end(), text);
    if (found == item->choices.end()) {
      return absl::InvalidArgumentError("answer is none of the choices");
    }
    item->answer_index = static_cast<size_t>(found - item->choices.begin());
  }
  item->answer = item->choices[item->answer_index];
  return absl::OkStatus();
}

absl::StatusOr<TaskItem> ParseTask(const std::string& line) {
  GF_ASSIGN_OR_RETURN(const json object, ParseStrictJson(line, "question"));
  if (!object.is_object()) return absl::InvalidArgumentError("not a JSON object");
  TaskItem item;
  if (object.contains("tag")) {
    GF_ASSIGN_OR_RETURN(item.tag, StringField(object, "tag"));
  }
  GF_ASSIGN_OR_RETURN(item.question, StringField(object, "question"));
  if (object.contains("choices")) {
    GF_RETURN_IF_ERROR(ReadChoices(object, &item));
  } else {
    GF_ASSIGN_OR_RETURN(item.answer, StringField(object, "answer"));
  }
  return item;
}

bool IsNumber(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

std::optional<TaskItem> ParseEquation(const std::string& line) {
  const std::vector<std::string> parts = absl::StrSplit(absl::StripAsciiWhitespace(line), ' ');
  if (parts.size() != 5 || parts[1].size() != 1 || parts[3] != "=") return std::nullopt;
  if (absl::string_view("+-*/").find(parts[1]) == absl::string_view::npos) return std::nullopt;
  const absl::string_view answer = parts[4];
  if (!IsNumber(parts[0]) || !IsNumber(parts[2]) ||
      !(IsNumber(answer) ||
        (answer.size() > 1 && answer[0] == '-' && IsNumber(answer.substr(1))))) {
    return std::nullopt;
  }
  TaskItem item;
  item.tag = absl::StrCat(std::max(parts[0].size(), parts[2].size()), "-digit ", parts[1]);
  item.question = absl::StrCat(parts[0], " ", parts[1], " ", parts[2], " =");
  item.answer = parts[4];
  return item;
}

}  // namespace

absl::StatusOr<std::vector<TaskItem>> ReadTasks(const std::string& path) {
  GF_ASSIGN_OR_RETURN(const std::vector<std::string> lines, ReadLines(path));
  std::vector<TaskItem> items;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (absl::StripAsciiWhitespace(lines[i]).empty()) continue;
    absl::StatusOr<TaskItem> item = ParseTask(lines[i]);
    if (!item.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": line ", i + 1, ": ", item.status().message()));
    }
    if (item->tag.empty()) item->tag = Stem(path);
    item->where = absl::StrCat(path, ": line ", i + 1);
    items.push_back(*std::move(item));
  }
  if (items.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": has no questions"));
  return items;
}

absl::StatusOr<std::vector<TaskItem>> ReadEquations(const std::string& path) {
  GF_ASSIGN_OR_RETURN(const std::vector<std::string> lines, ReadLines(path));
  std::vector<TaskItem> items;
  for (size_t i = 0; i < lines.size(); ++i) {
    std::optional<TaskItem> item = ParseEquation(lines[i]);
    if (!item.has_value()) continue;
    item->where = absl::StrCat(path, ": line ", i + 1);
    items.push_back(*std::move(item));
  }
  if (items.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has no line such as \"37 + 45 = 82\""));
  }
  return items;
}

}  // namespace gatefold::cli

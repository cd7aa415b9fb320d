#include "cli/flag_set.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "cli/error_report.h"
#include "cli/token_ids.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

template <typename T, typename Parse>
absl::Status ParseNumber(absl::string_view text, const char* what, T* value, Parse parse) {
  return parse(text, value) ? absl::OkStatus()
                            : absl::InvalidArgumentError(absl::StrCat("must be ", what));
}

bool ToInt(absl::string_view text, int* value) { return absl::SimpleAtoi(text, value); }

// SimpleAtoi takes "-0" for an unsigned number.
template <typename T>
bool ToUnsigned(absl::string_view text, T* value) {
  return !absl::StartsWith(text, "-") && absl::SimpleAtoi(text, value);
}

// Insertions, deletions and replacements that turn one into the other.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() +
                          1);  // distances of a's first i characters to all of b's starts
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string EnvironmentName(absl::string_view flag) {
  return absl::StrCat("GATEFOLD_", absl::AsciiStrToUpper(absl::StrReplaceAll(flag, {{"-", "_"}})));
}

}  // namespace

absl::Status ParseFlagValue(absl::string_view text, std::string* value) {
  *value = std::string(text);
  return absl::OkStatus();
}

absl::Status ParseFlagValue(absl::string_view text, bool* value) {
  return ParseNumber(text, "true or false", value,
                     [](absl::string_view t, bool* v) { return absl::SimpleAtob(t, v); });
}

absl::Status ParseFlagValue(absl::string_view text, int* value) {
  return ParseNumber(text, "a whole number", value, ToInt);
}

absl::Status ParseFlagValue(absl::string_view text, uint32_t* value) {
  return ParseNumber(text, "a whole number from 0 to 4294967295", value, ToUnsigned<uint32_t>);
}

absl::Status ParseFlagValue(absl::string_view text, uint64_t* value) {
  return ParseNumber(text, "a whole number from 0 to 2^64 - 1", value, ToUnsigned<uint64_t>);
}

absl::Status ParseFlagValue(absl::string_view text, float* value) {
  return ParseNumber(text, "a number", value,
                     [](absl::string_view t, float* v) { return absl::SimpleAtof(t, v); });
}

absl::Status ParseFlagValue(absl::string_view text, absl::Duration* value) {
  if (!absl::ParseDuration(text, value) || *value <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("must be a positive duration, as 30s or 1.5m");
  }
  return absl::OkStatus();
}

absl::Status ParseFlagValue(absl::string_view text, std::vector<std::string>* value) {
  value->push_back(std::string(text));
  return absl::OkStatus();
}

absl::Status ParseFlagValue(absl::string_view text, std::vector<int32_t>* value) {
  GF_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseTokenIds(text));
  value->insert(value->end(), ids.begin(), ids.end());
  return absl::OkStatus();
}

void FlagSet::AddSwitch(absl::string_view name, absl::string_view help, bool* target) {
  Add(name, "", help, target);
}

void FlagSet::Section(absl::string_view title) {
  sections_.emplace_back(flags_.size(), std::string(title));
}

FlagSet::Flag* FlagSet::Find(absl::string_view name) {
  const std::string dashed = absl::StrReplaceAll(name, {{"_", "-"}});
  const auto found = std::find_if(flags_.begin(), flags_.end(),
                                  [&](const Flag& flag) { return flag.name == dashed; });
  return found == flags_.end() ? nullptr : &*found;
}

bool FlagSet::OnCommandLine(absl::string_view name) const {
  return std::any_of(flags_.begin(), flags_.end(),
                     [&](const Flag& flag) { return flag.name == name && flag.on_command_line; });
}

std::string FlagSet::Nearest(absl::string_view name) const {
  constexpr size_t kFar = 3;
  constexpr size_t kLongest = 64;  // nobody mistypes more
  const Flag* nearest = nullptr;
  size_t least = kFar;
  for (const Flag& flag : flags_) {
    if (name.size() > kLongest) break;
    const size_t distance = EditDistance(name, flag.name);
    if (distance < least && distance < flag.name.size()) {
      least = distance;
      nearest = &flag;
    }
  }
  return nearest == nullptr ? "" : nearest->name;
}

absl::StatusOr<FlagSet::Match> FlagSet::MatchLong(absl::string_view argument) {
  const absl::string_view body = absl::StripPrefix(argument, "--");
  const size_t end = body.find('=');
  const absl::string_view name = body.substr(0, end);
  Match match;
  match.flag = Find(name);
  if (end != absl::string_view::npos) match.value = std::string(body.substr(end + 1));
  if (match.flag != nullptr) {
    if (match.flag->value_name.empty() && !match.value) match.value = "true";
    return match;
  }
  absl::string_view positive = name;
  if (absl::ConsumePrefix(&positive, "no-") || absl::ConsumePrefix(&positive, "no_")) {
    match.flag = Find(positive);
    if (match.flag != nullptr && match.flag->value_name.empty() && !match.value) {
      match.value = "false";
      return match;
    }
  }
  const std::string nearest = Nearest(name);
  return UsageError(absl::StrCat("there is no flag --", name,
                                 nearest.empty() ? "" : "; did you mean --", nearest,
                                 nearest.empty() ? "" : "?"));
}

absl::StatusOr<FlagSet::Match> FlagSet::MatchLetter(absl::string_view argument) {
  for (Flag& flag : flags_) {
    if (flag.letter != argument[1]) continue;
    Match match{&flag, std::nullopt};
    absl::string_view rest = argument.substr(2);
    if (!rest.empty()) match.value = std::string(absl::StripPrefix(rest, "="));
    return match;
  }
  return UsageError(
      absl::StrCat("there is no flag ", argument, "; text that starts with - goes after --"));
}

absl::StatusOr<std::vector<std::string>> FlagSet::Parse(const std::vector<std::string>& arguments,
                                                        const Environment& environment) {
  std::vector<std::string> rest;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "--") {
      rest.insert(rest.end(), arguments.begin() + i + 1, arguments.end());
      break;
    }
    if (argument.size() < 2 || argument[0] != '-') {
      rest.push_back(argument);
      continue;
    }
    if (argument == "--help" || argument == "-h") {
      help_wanted_ = true;
      return rest;
    }
    GF_ASSIGN_OR_RETURN(Match match,
                        argument[1] == '-' ? MatchLong(argument) : MatchLetter(argument));
    if (!match.value) {
      if (++i == arguments.size()) {
        return UsageError(
            absl::StrCat("--", match.flag->name, " wants a value: ", match.flag->value_name));
      }
      match.value = arguments[i];
    }
    match.flag->on_command_line = true;
    if (absl::Status set = match.flag->set(*match.value); !set.ok()) {
      return UsageError(
          absl::StrCat("--", match.flag->name, " is \"", *match.value, "\", ", set.message()));
    }
  }
  GF_RETURN_IF_ERROR(ReadEnvironment(environment));
  return rest;
}

absl::Status FlagSet::ReadEnvironment(const Environment& environment) {
  for (Flag& flag : flags_) {
    if (flag.on_command_line) continue;
    const std::string name = EnvironmentName(flag.name);
    const auto found = environment.find(name);
    if (found == environment.end()) continue;
    if (absl::Status set = flag.set(found->second); !set.ok()) {
      return UsageError(absl::StrCat(name, " is \"", found->second, "\", ", set.message()));
    }
  }
  return absl::OkStatus();
}

std::string FlagSet::Help() const {
  constexpr size_t kColumn = 30;
  std::string text;
  size_t section = 0;
  for (size_t i = 0; i < flags_.size(); ++i) {
    for (; section < sections_.size() && sections_[section].first == i; ++section) {
      absl::StrAppend(&text, i == 0 ? "" : "\n", sections_[section].second, "\n");
    }
    const Flag& flag = flags_[i];
    std::string line = "  ";
    if (flag.letter != 0) absl::StrAppend(&line, "-", std::string(1, flag.letter), ", ");
    absl::StrAppend(&line, flag.value_name.empty() ? "--[no-]" : "--", flag.name,
                    flag.value_name.empty() ? "" : " ", flag.value_name);
    line.append(line.size() < kColumn ? kColumn - line.size() : 2, ' ');
    absl::StrAppend(&text, line, flag.help, "\n");
  }
  return text;
}

}  // namespace gatefold::cli

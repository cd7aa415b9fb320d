#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gatefold::cli {

// Environment variables by name.
using Environment = std::map<std::string, std::string>;

// The text of one flag as a value. InvalidArgument says what the text must be. A list takes its
// items after those it has.
absl::Status ParseFlagValue(absl::string_view text, std::string* value);
absl::Status ParseFlagValue(absl::string_view text, bool* value);  // true, false, 1, 0
absl::Status ParseFlagValue(absl::string_view text, int* value);
absl::Status ParseFlagValue(absl::string_view text, uint32_t* value);
absl::Status ParseFlagValue(absl::string_view text, uint64_t* value);
absl::Status ParseFlagValue(absl::string_view text, float* value);
absl::Status ParseFlagValue(absl::string_view text, absl::Duration* value);  // "1.5s", "2m"
absl::Status ParseFlagValue(absl::string_view text, std::vector<std::string>* value);
absl::Status ParseFlagValue(absl::string_view text, std::vector<int32_t>* value);  // "1,5,9"
template <typename T>
absl::Status ParseFlagValue(absl::string_view text, std::optional<T>* value) {
  return ParseFlagValue(text, &value->emplace());
}

// The flags of one verb. Abseil's flags belong to a whole program, know no single letters and end
// the process with 1; the verbs of one command need flags of their own.
//   FlagSet flags;
//   flags.Add("max-tokens", "N", "at most so many tokens", &max_tokens);
//   GF_ASSIGN_OR_RETURN(auto rest, flags.Parse(arguments, environment));
// Targets outlive the set and hold the defaults beforehand.
class FlagSet {
 public:
  // Takes a value: --name VALUE or --name=VALUE; of a `letter` also -o VALUE and -oVALUE.
  // Underscores in a name as written by the user are as good as dashes.
  template <typename T>
  void Add(absl::string_view name, absl::string_view value_name, absl::string_view help, T* target,
           char letter = 0) {
    flags_.push_back({std::string(name), std::string(value_name), std::string(help), letter,
                      [target](absl::string_view text) { return ParseFlagValue(text, target); }});
  }
  // --name, --no-name, --name=true.
  void AddSwitch(absl::string_view name, absl::string_view help, bool* target);
  // What comes after it stands under this line of the help.
  void Section(absl::string_view title);

  // The arguments that are no flags. What the command line does not give is taken from
  // GATEFOLD_MAX_TOKENS and the like. `--` ends the flags; `-` alone is no flag.
  // Errors: a usage error (error_report.h) that names the flag.
  absl::StatusOr<std::vector<std::string>> Parse(const std::vector<std::string>& arguments,
                                                 const Environment& environment);

  // After Parse. --help or -h was there; the rest was not looked at.
  bool help_wanted() const { return help_wanted_; }
  bool OnCommandLine(absl::string_view name) const;

  // A line per flag.
  std::string Help() const;

 private:
  struct Flag {
    std::string name;
    std::string value_name;  // empty: a switch
    std::string help;
    char letter = 0;
    std::function<absl::Status(absl::string_view)> set;
    bool on_command_line = false;
  };
  // The flag that an argument names, and its value if that is part of the argument.
  struct Match {
    Flag* flag = nullptr;
    std::optional<std::string> value;
  };
  Flag* Find(absl::string_view name);
  // The name of the flag that `name` may be a slip of; empty if none comes near.
  std::string Nearest(absl::string_view name) const;
  absl::StatusOr<Match> MatchLong(absl::string_view argument);
  absl::StatusOr<Match> MatchLetter(absl::string_view argument);
  absl::Status ReadEnvironment(const Environment& environment);

  std::vector<Flag> flags_;
  std::vector<std::pair<size_t, std::string>> sections_;  // index of the first flag, title
  bool help_wanted_ = false;
};

}  // namespace gatefold::cli

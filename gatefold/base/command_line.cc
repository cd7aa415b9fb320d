#include "gatefold/base/command_line.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

extern char** environ;

namespace gatefold {
namespace {

constexpr char kPrefix[] = "GATEFOLD_";

[[noreturn]] void Usage(const std::string& message) {
  std::fprintf(stderr, "%s; see --help\n", message.c_str());
  std::exit(2);
}

// Unknown names and bad values would make absl exit with 1; a wrong call is 2 by convention.
void RefuseWhatCannotBe(const std::vector<std::string>& arguments) {
  for (size_t i = 1; i < arguments.size(); ++i) {
    absl::string_view name = arguments[i];
    if (!absl::ConsumePrefix(&name, "-") || name.empty()) continue;
    absl::ConsumePrefix(&name, "-");  // absl takes one dash for two
    const size_t equals = name.find('=');
    absl::string_view value = equals == name.npos ? "" : name.substr(equals + 1);
    name = name.substr(0, equals);
    if (name == "help" || name == "helpfull" || name == "version") continue;  // absl's own
    absl::CommandLineFlag* const flag = absl::FindCommandLineFlag(name);
    if (flag == nullptr) {
      const bool negated = absl::ConsumePrefix(&name, "no") && equals == name.npos;
      const absl::CommandLineFlag* const positive = absl::FindCommandLineFlag(name);
      if (negated && positive != nullptr && positive->IsOfType<bool>()) continue;
      Usage(absl::StrCat("unknown flag ", arguments[i]));
    }
    if (equals == name.npos) {
      if (flag->IsOfType<bool>()) continue;
      if (++i == arguments.size()) Usage(absl::StrCat(arguments[i - 1], " has no value"));
      value = arguments[i];
    }
    // absl does the same again.
    if (std::string why; !flag->ParseFrom(value, &why)) Usage(why);
  }
}

}  // namespace

std::vector<std::string> ExpandArguments(const std::vector<std::string>& arguments,
                                         const std::vector<std::string>& environment) {
  std::vector<std::string> expanded;
  std::set<std::string> given;
  for (const std::string& argument : arguments) {
    std::string turned = argument;
    const size_t end = std::min(turned.find('='), turned.size());
    if (absl::StartsWith(turned, "--")) {
      std::replace(turned.begin() + 2, turned.begin() + end, '-', '_');
    }
    absl::string_view name = absl::string_view(turned).substr(0, end);
    if (absl::ConsumePrefix(&name, "-")) {
      absl::ConsumePrefix(&name, "-");
      given.emplace(name);
      if (absl::ConsumePrefix(&name, "no")) given.emplace(name);  // a switch turned off
    }
    expanded.push_back(std::move(turned));
  }
  for (const std::string& variable : environment) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(variable, absl::MaxSplits('=', 1));
    if (!absl::StartsWith(parts.first, kPrefix)) continue;
    const std::string name = absl::AsciiStrToLower(absl::StripPrefix(parts.first, kPrefix));
    if (given.contains(name) || absl::FindCommandLineFlag(name) == nullptr) continue;
    expanded.push_back(absl::StrCat("--", name, "=", parts.second));
  }
  return expanded;
}

std::vector<std::pair<std::string, std::string>> FlagValues() {
  std::map<std::string, std::string> values;  // abseil's order is none
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (absl::StrContains(flag->Filename(), "absl/")) continue;
    values[absl::StrReplaceAll(name, {{"_", "-"}})] = flag->CurrentValue();
  }
  return {values.begin(), values.end()};
}

void ParseFlags(int argc, char** argv, const std::string& version) {
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    environment.push_back(*variable);
  }
  std::vector<std::string> arguments =
      ExpandArguments(std::vector<std::string>(argv, argv + argc), environment);
  // --help shows our flags and none of the library's own.
  absl::FlagsUsageConfig usage;
  usage.contains_help_flags = usage.contains_helpshort_flags = usage.contains_helppackage_flags =
      [](absl::string_view file) { return !absl::StrContains(file, "absl/"); };
  // The library's own text tells how the library was built.
  if (!version.empty()) usage.version_string = [version] { return version + "\n"; };
  absl::SetFlagsUsageConfig(usage);
  RefuseWhatCannotBe(arguments);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  const std::vector<char*> rest =
      absl::ParseCommandLine(static_cast<int>(pointers.size()), pointers.data());
  if (rest.size() > 1) Usage(absl::StrCat("\"", rest[1], "\" is no flag"));
}

}  // namespace gatefold

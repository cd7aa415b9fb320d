#pragma once

#include <string>
#include <utility>
#include <vector>

namespace gatefold {

// absl::ParseCommandLine as users of this field expect it: names with dashes (--metrics-port) as
// well as underscores, and GATEFOLD_METRICS_PORT in the environment for what the command line does
// not say. Ends the process with a message and exit code 2 for unknown flags, bad values and
// arguments that are no flags. --version prints `version`, if there is one.
void ParseFlags(int argc, char** argv, const std::string& version = "");

// The arguments with dashes in flag names turned into underscores, and with `--name=value` for each
// GATEFOLD_NAME of `environment` ("KEY=value" strings) that is a known flag and not given.
std::vector<std::string> ExpandArguments(const std::vector<std::string>& arguments,
                                         const std::vector<std::string>& environment);

// The program's own flags (none of a library's) with the values they have now, by name, with
// dashes.
std::vector<std::pair<std::string, std::string>> FlagValues();

}  // namespace gatefold

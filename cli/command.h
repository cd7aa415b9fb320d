#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/flag_set.h"
#include "cli/verb.h"

namespace gatefold::cli {

// Runs `gatefold ARGUMENTS` and returns the exit code: 0, 1 failed, 2 wrong usage, 130 interrupted.
int RunCommand(const std::vector<std::string>& arguments, const Environment& environment,
               Console* console);

// All verbs, in the order of the help.
std::vector<std::unique_ptr<Verb>> MakeVerbs();

}  // namespace gatefold::cli

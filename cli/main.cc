// gatefold: the command line. Verbs are in files of their own; verbs.cc lists them.

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "cli/command.h"
#include "cli/error_report.h"
#include "gatefold/base/log.h"
#include "gatefold/rpc/process.h"

extern char** environ;

namespace gatefold::cli {
namespace {

Environment ReadEnvironment() {
  Environment environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    const size_t end = text.find('=');
    if (end != std::string::npos) environment[text.substr(0, end)] = text.substr(end + 1);
  }
  return environment;
}

int Main(const std::vector<std::string>& arguments) {
  InitProcess();
  SetLogLevel(LogLevel::kWarning);
  std::ios::sync_with_stdio(false);
  Interrupts interrupts;
  Console console{std::cin,    std::cout,
                  std::cerr,   isatty(STDIN_FILENO) == 1,
                  &interrupts, isatty(STDOUT_FILENO) == 1};

  std::atomic<bool> done = false;
  std::thread watcher([&] {
    WaitForTermination(absl::InfiniteFuture());
    // With nothing under way (a model that loads, a line to be typed) there is nothing to wait for.
    if (!done && !interrupts.Raise()) {
      std::fputc('\n', stderr);
      _exit(kExitInterrupted);
    }
  });
  const int exit_code = RunCommand(arguments, ReadEnvironment(), &console);
  done = true;
  RequestTermination();
  watcher.join();
  return exit_code;
}

}  // namespace
}  // namespace gatefold::cli

int main(int argc, char** argv) {
  return gatefold::cli::Main(std::vector<std::string>(argv + 1, argv + argc));
}

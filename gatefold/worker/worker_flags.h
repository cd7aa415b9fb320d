#pragma once

// Flags that the three services have in common. Only programs link this.

#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/base/periodic_task.h"
#include "gatefold/rpc/process.h"
#include "gatefold/worker/worker.h"

namespace gatefold {

// --name, --threads, --isa, --n-slices, --metrics-port, --health-port and --tls-cert-file,
// -key-file, -ca-file. Also sets up the log, by --log-format and --log-level,
// and begins it with a line of all the program's flags.
WorkerOptions WorkerOptionsFromFlags();

// What --version says: "expert-service 0.1.0".
std::string VersionOf(const char* program);

// The exit code for why `program` does not serve, which it prints: 2 for wrong flags, else 1.
int ExitCode(const char* program, const absl::Status& why_not);

// Ends the process, with exit code 0, if it was told to terminate.
void EndIfTerminated();

// What is left of a worker's main(): `start` gives the server, in a StatusOr of a unique_ptr; it
// serves until SIGTERM, then drains. The exit code. One that is told to terminate while it starts
// ends there and then: loading weights takes minutes, and it has nothing yet that anybody needs.
template <typename Start>
int ServeUntilTerminated(const char* program, Start start) {
  auto watch = std::make_unique<PeriodicTask>(absl::Milliseconds(100), EndIfTerminated);
  const auto server = start();
  watch.reset();
  if (!server.ok()) return ExitCode(program, server.status());
  PrintReady((*server)->address(), (*server)->metrics_address());
  WaitForTermination(absl::InfiniteFuture());
  (*server)->Drain();
  return 0;
}

}  // namespace gatefold

#pragma once

// Flags that the three services have in common. Only programs link this.

#include <cstdio>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gatefold/rpc/process.h"
#include "gatefold/worker/worker.h"

namespace gatefold {

// --name, --threads, --isa, --n-slices, --metrics-port, --health-port and --tls-cert-file,
// -key-file, -ca-file.
WorkerOptions WorkerOptionsFromFlags();

// The exit code for why `program` does not serve, which it prints: 2 for wrong flags, else 1.
int ExitCode(const char* program, const absl::Status& why_not);

// What is left of a worker's main(): serves until SIGTERM, then drains. The exit code.
template <typename Server>
int ServeUntilTerminated(const char* program,
                         const absl::StatusOr<std::unique_ptr<Server>>& server) {
  if (!server.ok()) return ExitCode(program, server.status());
  PrintReady((*server)->address(), (*server)->metrics_address());
  WaitForTermination(absl::InfiniteFuture());
  (*server)->Drain();
  return 0;
}

}  // namespace gatefold

#pragma once

#include "absl/time/time.h"

namespace gatefold {

struct ProcessOptions {
  // More than one thread waits on a completion queue of its own (lanes, a server beside clients).
  // gRPC's default poller has one polling thread per process, which would have to wake the others.
  bool several_completion_queues = false;
};

// First thing in main(), before flags start threads and before any use of gRPC: allocator settings
// that keep message buffers from being returned to the kernel and faulted in again (half the time
// of a 1 MiB hop), no deadlock detection in release builds, SIGPIPE ignored, gRPC's log lines in
// our log, SIGTERM and SIGINT turned into TerminationRequested.
void InitProcess(const ProcessOptions& options);

// Waits until SIGTERM or SIGINT came; returns its number, or 0 when the deadline passed first.
// A second signal ends the process at once. Threads: any.
int WaitForTermination(absl::Time deadline);
// Threads: any.
bool TerminationRequested();
// As if SIGTERM had come. Threads: any.
void RequestTermination();

}  // namespace gatefold

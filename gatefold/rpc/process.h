#pragma once

#include "absl/time/time.h"

namespace gatefold {

// First thing in main(), before flags start threads and before any use of gRPC:
// - allocator settings that keep message buffers from being returned to the kernel and faulted in
//   again (half the time of a 1 MiB hop);
// - GRPC_POLL_STRATEGY=poll, unless the environment says otherwise: gRPC's default has one polling
//   thread for all completion queues, which must wake the others, and wakes for every write that a
//   unix socket's peer has read (1.6 wake-ups per hop instead of 1);
// - a limit of open files that is enough for a service, as far as this process may set it;
// - no deadlock detection in release builds (6 % of a hop), SIGPIPE ignored;
// - gRPC's and protobuf's log lines in our log, SIGTERM and SIGINT for WaitForTermination.
void InitProcess();

// Waits until SIGTERM or SIGINT came; returns its number, or 0 when the deadline passed first.
// A second signal ends the process at once. Threads: any.
int WaitForTermination(absl::Time deadline);
// Threads: any.
bool TerminationRequested();
// As if SIGTERM had come. Threads: any.
void RequestTermination();

}  // namespace gatefold

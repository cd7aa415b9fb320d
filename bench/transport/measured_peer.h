#pragma once

// The two sides of a measured hop, each a process of its own: a server that echoes, and a client
// that times round trips when told to. One pair speaks raw sockets, the other goes through
// gatefold/rpc.

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gatefold/rpc/wait_policy.h"

namespace gatefold::bench {

struct PeerOptions {
  std::vector<std::string> addresses;  // a server has one; a client fans out to all
  WaitPolicy wait;
  size_t bytes = 8192;  // payload, both ways
  bool bulk = false;    // the bulk channel's arguments
  bool worker = false;  // the server answers on a worker thread
};

// Print "ADDRESS\n" to stdout once they listen, then serve until they are killed.
absl::Status RunRawServer(const PeerOptions& options);
absl::Status RunRpcServer(const PeerOptions& options);

// Connect, then obey ServeBursts.
absl::Status RunRawClient(const PeerOptions& options);
absl::Status RunRpcClient(const PeerOptions& options);

// Reads the length of a burst in microseconds (uint32) from stdin, does round trips for that long
// and writes their number (uint32) and times in microseconds (float) to stdout; until stdin ends.
// The first fifth of a burst is not reported: it warms what sleeping has cooled. At least three
// are, however long they take.
void ServeBursts(const std::function<void()>& round_trip);

double NowMicros();
void PrintAddress(const std::string& address);

}  // namespace gatefold::bench

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// Where a service listens or is reached.
//   "10.0.0.7:7000"  "host.name:7000"  "[::1]:7000"  "unix:/run/gatefold/expert.sock"
//   "unix-abstract:name"
struct Address {
  enum class Kind { kTcp, kUnix, kUnixAbstract };
  Kind kind = Kind::kTcp;
  std::string host;  // without brackets
  int port = 0;      // 0: any free one; only for listening
  std::string path;  // of a unix socket, or the abstract name

  bool local() const { return kind != Kind::kTcp; }
  // As gRPC takes it.
  std::string ToString() const;
};

// kInvalidArgument that says what is wrong with the text; a unix path must fit the 107 bytes of a
// socket address.
absl::StatusOr<Address> ParseAddress(absl::string_view text);

// Removes a unix socket left behind by a process that is gone. kAlreadyExists if somebody still
// listens there, or if the path is not a socket. Nothing to do for other kinds.
absl::Status RemoveStaleSocket(const Address& address);

}  // namespace gatefold

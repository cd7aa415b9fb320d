#pragma once

#include <sys/socket.h>

#include <functional>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gatefold/rpc/address.h"

namespace gatefold {

// Listens at addresses and accepts connections, on a thread of its own. gRPC 1.51 could do that,
// but a process of which it has run out of descriptors once is never listened to again. Here the
// last descriptors are kept: connections past that are closed at once, which their callers take for
// a server that is not there for the moment.
// Threads: one at a time.
class Acceptor {
 public:
  // keeps_most: another acceptor of the process (for probes, say) shall still have some when this
  // one takes no more. user_timeout: how long a peer may leave what is sent unacknowledged.
  Acceptor(bool keeps_most, absl::Duration user_timeout)
      : keeps_most_(keeps_most), user_timeout_(user_timeout) {}
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;
  ~Acceptor();  // stops

  // Where it listens: the same with the real port. A host that stands for several addresses
  // (localhost, 0.0.0.0) is listened to at each. `take` runs on the thread and has to close what it
  // is given. Before Start.
  // Errors: kUnavailable.
  absl::StatusOr<Address> Listen(const Address& address, std::function<void(int)> take);

  void Start();
  // Closes the sockets and removes their files. When it returns, nobody is in `take`.
  void Stop();

 private:
  struct Socket {
    int fd = -1;
    Address address;
    std::function<void(int)> take;
  };

  absl::StatusOr<Address> ListenLocally(Address address, const std::function<void(int)>& take);
  absl::StatusOr<Address> ListenAtHost(Address address, const std::function<void(int)>& take);
  int Bind(const sockaddr* name, unsigned size, Address* address,
           const std::function<void(int)>& take);
  void Run();
  // Takes those that wait there, some at a time. False: there are no descriptors.
  bool AcceptSome(const Socket& socket);
  bool IsOneOfTheLast(int fd) const;
  void NoteRefused(const Address& address);

  const bool keeps_most_;
  const absl::Duration user_timeout_;
  std::vector<Socket> sockets_;
  int stop_fd_ = -1;
  std::thread thread_;
  // The thread's.
  int n_refused_ = 0;
  absl::Time told_ = absl::InfinitePast();
};

}  // namespace gatefold

#include "gatefold/rpc/acceptor.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/log.h"

namespace gatefold {
namespace {

constexpr int kPauseMs = 100;  // when there are no descriptors
// At a time, from one socket: callers who come without a pause keep neither the others nor the end
// waiting.
constexpr int kMostAtOnce = 64;
constexpr absl::Duration kTellEvery = absl::Seconds(10);

absl::Status Failed(const Address& address, absl::string_view why) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address.ToString(), ": ", why));
}

void Set(int fd, int level, int option, int value) {
  setsockopt(fd, level, option, &value, sizeof value);
}

bool IsAny(const sockaddr* name) {
  if (name->sa_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in*>(name)->sin_addr.s_addr == INADDR_ANY;
  }
  return IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(name)->sin6_addr);
}

void SetPort(int port, sockaddr_storage* name) {
  const uint16_t wire = htons(static_cast<uint16_t>(port));
  if (name->ss_family == AF_INET) reinterpret_cast<sockaddr_in*>(name)->sin_port = wire;
  if (name->ss_family == AF_INET6) reinterpret_cast<sockaddr_in6*>(name)->sin6_port = wire;
}

int PortOf(int fd) {
  sockaddr_storage name = {};
  socklen_t size = sizeof name;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return 0;
  return ntohs(name.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&name)->sin_port
                                         : reinterpret_cast<sockaddr_in6*>(&name)->sin6_port);
}

}  // namespace

Acceptor::~Acceptor() { Stop(); }

// Fills in the port of `address` if that is 0. Returns what went wrong, or 0.
int Acceptor::Bind(const sockaddr* name, unsigned size, Address* address,
                   const std::function<void(int)>& take) {
  const int fd = socket(name->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return errno;
  if (!address->local()) {
    Set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    Set(fd, IPPROTO_TCP, TCP_NODELAY, 1);  // connections inherit it
    Set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(user_timeout_ / absl::Milliseconds(1)));
  }
  if (name->sa_family == AF_INET6) Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, IsAny(name) ? 0 : 1);
  if (bind(fd, name, size) != 0 || listen(fd, SOMAXCONN) != 0) {
    const int error = errno;
    close(fd);
    return error;
  }
  if (!address->local() && address->port == 0) address->port = PortOf(fd);
  sockets_.push_back({fd, *address, take});
  return 0;
}

absl::StatusOr<Address> Acceptor::Listen(const Address& wanted, std::function<void(int)> take) {
  return wanted.local() ? ListenLocally(wanted, take) : ListenAtHost(wanted, take);
}

absl::StatusOr<Address> Acceptor::ListenLocally(Address address,
                                                const std::function<void(int)>& take) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  const bool abstract = address.kind == Address::Kind::kUnixAbstract;
  std::memcpy(name.sun_path + (abstract ? 1 : 0), address.path.data(), address.path.size());
  const size_t size = offsetof(sockaddr_un, sun_path) + address.path.size() + 1;
  const int error =
      Bind(reinterpret_cast<const sockaddr*>(&name), static_cast<unsigned>(size), &address, take);
  if (error != 0) return Failed(address, std::strerror(error));
  return address;
}

absl::StatusOr<Address> Acceptor::ListenAtHost(Address address,
                                               const std::function<void(int)>& take) {
  addrinfo hints = {};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  if (const int error = getaddrinfo(address.host.c_str(), nullptr, &hints, &list); error != 0) {
    return Failed(address, gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(list, freeaddrinfo);
  const Address wanted = address;
  std::set<std::string> tried;  // a name may have an address twice
  bool bound = false;
  int error = 0;
  const auto bind = [&](const sockaddr* name, unsigned size) {
    if (!tried.insert(std::string(reinterpret_cast<const char*>(name), size)).second) return false;
    sockaddr_storage with_port = {};
    std::memcpy(&with_port, name, size);
    SetPort(address.port, &with_port);
    const int failed = Bind(reinterpret_cast<sockaddr*>(&with_port), size, &address, take);
    bound = bound || failed == 0;
    if (failed != 0 && error != EADDRINUSE) error = failed;
    return failed == 0;
  };
  for (const addrinfo* found = list; found != nullptr; found = found->ai_next) {
    sockaddr_in6 both = {};  // where there are two families
    both.sin6_family = AF_INET6;
    if (IsAny(found->ai_addr) && bind(reinterpret_cast<sockaddr*>(&both), sizeof both)) break;
    bind(found->ai_addr, found->ai_addrlen);
  }
  // Whoever has the other half of a host would get half of the callers.
  if (!bound || error == EADDRINUSE) return Failed(wanted, std::strerror(error));
  return address;
}

void Acceptor::Start() {
  GF_CHECK(!thread_.joinable());
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  GF_CHECK(stop_fd_ >= 0);
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "rpc-accept");
    Run();
  });
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    GF_CHECK(write(stop_fd_, &one, sizeof one) == sizeof one);
    thread_.join();
    close(stop_fd_);
  }
  for (const Socket& socket : sockets_) {
    if (socket.address.kind == Address::Kind::kUnix) unlink(socket.address.path.c_str());
    close(socket.fd);
  }
  sockets_.clear();
}

void Acceptor::Run() {
  std::vector<pollfd> waited = {{stop_fd_, POLLIN, 0}};
  for (const Socket& socket : sockets_) waited.push_back({socket.fd, POLLIN, 0});
  bool pause = false;
  while (true) {
    // While it pauses, only the end is waited for.
    if (poll(waited.data(), pause ? 1 : waited.size(), pause ? kPauseMs : -1) < 0) continue;
    if (waited[0].revents != 0) return;
    pause = false;
    for (size_t i = 0; i < sockets_.size(); ++i) pause = !AcceptSome(sockets_[i]) || pause;
  }
}

bool Acceptor::AcceptSome(const Socket& socket) {
  for (int i = 0; i < kMostAtOnce; ++i) {
    const int fd = accept4(socket.fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && IsOneOfTheLast(fd)) {
      close(fd);
      NoteRefused(socket.address);
    } else if (fd >= 0) {
      socket.take(fd);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return true;
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      NoteRefused(socket.address);
      return false;
    }  // else one that was gone before it was taken
  }
  return true;
}

// The lowest free one is handed out, so its number says how many there are.
bool Acceptor::IsOneOfTheLast(int fd) const {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return false;
  const uint64_t kept = std::min<uint64_t>(limit.rlim_cur / 8, 128);
  return static_cast<uint64_t>(fd) + (keeps_most_ ? 2 * kept : kept) >= limit.rlim_cur;
}

void Acceptor::NoteRefused(const Address& address) {
  ++n_refused_;
  const absl::Time now = absl::Now();
  if (now - told_ < kTellEvery) return;
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  LogEvent(LogLevel::kWarning, "connections_refused",
           {{"address", address.ToString()},
            {"open_files_limit", limit.rlim_cur},
            {"refused", n_refused_}});
  n_refused_ = 0;
  told_ = now;
}

}  // namespace gatefold

// The floor: length and payload over a socket, read into one buffer, written from one.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "bench/transport/measured_peer.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/address.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold::bench {
namespace {

constexpr size_t kMaxBytes = size_t{64} << 20;

struct Header {
  uint64_t id;
  uint64_t bytes;
};

struct SocketName {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

SocketName NameOf(const Address& address) {
  SocketName name;
  if (address.kind == Address::Kind::kUnix) {
    auto* un = reinterpret_cast<sockaddr_un*>(&name.storage);
    un->sun_family = AF_UNIX;
    std::memcpy(un->sun_path, address.path.data(), address.path.size());
    name.size = sizeof *un;
  } else {
    auto* in = reinterpret_cast<sockaddr_in*>(&name.storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(static_cast<uint16_t>(address.port));
    inet_pton(AF_INET, address.host.c_str(), &in->sin_addr);
    name.size = sizeof *in;
  }
  return name;
}

absl::StatusOr<int> MakeSocket(const Address& address) {
  const int family = address.kind == Address::Kind::kUnix ? AF_UNIX : AF_INET;
  const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "socket");
  return fd;
}

void NoDelay(int fd) {
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);  // fails on unix sockets, as it may
}

class Connection {
 public:
  Connection(int fd, bool spin) : fd_(fd), flags_(spin ? MSG_DONTWAIT : 0) {}

  bool Receive(void* to, size_t bytes) {
    char* at = static_cast<char*>(to);
    while (bytes > 0) {
      const ssize_t n = recv(fd_, at, bytes, flags_);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (n <= 0) return false;
      at += n;
      bytes -= n;
    }
    return true;
  }

  bool Send(Header header, const void* payload) {
    iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(payload), header.bytes}};
    size_t part = 0;
    while (part < 2) {
      msghdr message = {};
      message.msg_iov = parts + part;
      message.msg_iovlen = 2 - part;
      ssize_t n = sendmsg(fd_, &message, MSG_NOSIGNAL);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
      if (n < 0) return false;
      while (part < 2 && static_cast<size_t>(n) >= parts[part].iov_len) {
        n -= parts[part++].iov_len;
      }
      if (part < 2) {
        parts[part].iov_base = static_cast<char*>(parts[part].iov_base) + n;
        parts[part].iov_len -= n;
      }
    }
    return true;
  }

 private:
  int fd_;
  int flags_;
};

bool Spins(const PeerOptions& options) { return options.wait.spin > absl::ZeroDuration(); }

}  // namespace

absl::Status RunRawServer(const PeerOptions& options) {
  GF_ASSIGN_OR_RETURN(Address address, ParseAddress(options.addresses[0]));
  GF_RETURN_IF_ERROR(RemoveStaleSocket(address));
  GF_ASSIGN_OR_RETURN(const int listener, MakeSocket(address));
  SocketName name = NameOf(address);
  if (bind(listener, name.get(), name.size) != 0 || listen(listener, 8) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat("listen on ", address.ToString()));
  }
  getsockname(listener, name.get(), &name.size);
  if (address.kind == Address::Kind::kTcp) {
    address.port = ntohs(reinterpret_cast<sockaddr_in*>(name.get())->sin_port);
  }
  PrintAddress(address.ToString());
  Buffer buffer(kMaxBytes);
  for (;;) {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return absl::ErrnoToStatus(errno, "accept");
    NoDelay(fd);
    Connection connection(fd, Spins(options));
    Header header;
    while (connection.Receive(&header, sizeof header) && header.bytes <= kMaxBytes &&
           connection.Receive(buffer.data(), header.bytes) &&
           connection.Send(header, buffer.data())) {
    }
    close(fd);
  }
}

absl::Status RunRawClient(const PeerOptions& options) {
  std::vector<Connection> connections;
  for (const std::string& text : options.addresses) {
    GF_ASSIGN_OR_RETURN(const Address address, ParseAddress(text));
    GF_ASSIGN_OR_RETURN(const int fd, MakeSocket(address));
    SocketName name = NameOf(address);
    if (connect(fd, name.get(), name.size) != 0) {
      return absl::ErrnoToStatus(errno, absl::StrCat("connect to ", text));
    }
    NoDelay(fd);
    connections.emplace_back(fd, Spins(options));
  }
  Buffer sent(options.bytes + 64), received(options.bytes + 64);
  bool broken = false;
  ServeBursts([&] {
    for (Connection& connection : connections) {
      broken |= !connection.Send({1, options.bytes}, sent.data());
    }
    for (Connection& connection : connections) {
      Header header;
      broken |= !connection.Receive(&header, sizeof header) ||
                !connection.Receive(received.data(), options.bytes);
    }
    if (broken) _exit(1);
  });
  return absl::OkStatus();
}

}  // namespace gatefold::bench

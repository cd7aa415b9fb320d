#include "tests/integration/fault_proxy.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace gatefold {
namespace {

constexpr char kCallMethod[] = "ExpertService/Run";
constexpr size_t kSmallestRows = 64;  // bytes of a DATA frame with rows in it, at least
constexpr size_t kMaxPieces = 256;    // waiting in one direction; then reading stops
constexpr int kLook = 1;              // milliseconds between looks at what the test wants

sockaddr_un UnixAddress(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  return address;
}

}  // namespace

void FaultProxy::FrameScanner::Flip(std::string* bytes, bool lie) {
  for (char& byte : *bytes) {
    if (n_left == 0) {
      header[n_header++] = static_cast<unsigned char>(byte);
      if (n_header < sizeof(header)) continue;
      n_header = 0;
      n_left = (size_t{header[0]} << 16) | (size_t{header[1]} << 8) | header[2];
      continue;
    }
    const size_t length = (size_t{header[0]} << 16) | (size_t{header[1]} << 8) | header[2];
    if (lie && header[3] == 0 && length >= kSmallestRows && n_left == sizeof(float)) byte ^= 1;
    --n_left;
  }
}

absl::StatusOr<std::unique_ptr<FaultProxy>> FaultProxy::Start(const std::string& listen_path,
                                                              const std::string& target_path) {
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const sockaddr_un address = UnixAddress(listen_path);
  if (listener < 0 ||
      bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, 64) != 0) {
    if (listener >= 0) close(listener);
    return absl::InternalError(absl::StrCat(listen_path, ": ", std::strerror(errno)));
  }
  std::unique_ptr<FaultProxy> proxy(new FaultProxy(listener, target_path));
  proxy->thread_ = std::thread([p = proxy.get()] { p->Run(); });
  return proxy;
}

FaultProxy::~FaultProxy() {
  stopping_ = true;
  thread_.join();
  for (Connection& connection : connections_) CloseBoth(&connection);
  close(listener_);
}

void FaultProxy::CloseBoth(Connection* connection) {
  if (connection->router >= 0) close(connection->router);
  if (connection->shard >= 0) close(connection->shard);
  connection->router = connection->shard = -1;
  connection->dead = true;
}

bool FaultProxy::Silent(const Connection& connection) const {
  const Mode mode = mode_;
  return mode == Mode::kSilent || connection.router < 0 ||
         (mode == Mode::kSilentCalls && connection.carries_calls && connection.born < n_modes_);
}

void FaultProxy::Run() {
  while (!stopping_) {
    if (mode_ == Mode::kCut) {
      for (Connection& connection : connections_) CloseBoth(&connection);
    }
    for (Connection& connection : connections_) {
      const bool half = mode_ == Mode::kHalfCut && connection.born < n_modes_;
      if (half && connection.router >= 0) close(std::exchange(connection.router, -1));
    }
    std::erase_if(connections_, [](const Connection& each) { return each.dead; });
    std::vector<pollfd> fds = {{listener_, POLLIN, 0}};
    for (const Connection& connection : connections_) {
      const bool silent = Silent(connection);
      const auto events = [&](const std::deque<Piece>& from_it, const std::deque<Piece>& to_it) {
        if (silent) return short{0};
        const bool due = !to_it.empty() && to_it.front().due <= absl::Now();
        return static_cast<short>((from_it.size() < kMaxPieces ? POLLIN : 0) | (due ? POLLOUT : 0));
      };
      fds.push_back({connection.router, events(connection.to_shard, connection.to_router), 0});
      fds.push_back({connection.shard, events(connection.to_router, connection.to_shard), 0});
    }
    poll(fds.data(), fds.size(), kLook);
    size_t at = 1;
    for (Connection& connection : connections_) {
      const short router = fds[at++].revents, shard = fds[at++].revents;
      if (Silent(connection)) continue;
      const absl::Time now = absl::Now();
      if ((router & (POLLIN | POLLHUP | POLLERR)) != 0) Read(&connection, true);
      if (!connection.dead && (shard & (POLLIN | POLLHUP | POLLERR)) != 0) {
        Read(&connection, false);
      }
      if (!connection.dead) Write(&connection, true, now);
      if (!connection.dead) Write(&connection, false, now);
    }
    // Behind a cut network nobody is there to accept.
    if ((fds[0].revents & POLLIN) != 0 && mode_ != Mode::kSilent) Accept();
  }
}

void FaultProxy::Accept() {
  const int router = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (router < 0) return;
  Connection connection;
  connection.router = router;
  connection.born = n_modes_;
  connection.shard = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_un address = UnixAddress(target_path_);
  if (mode_ == Mode::kCut || connect(connection.shard, reinterpret_cast<const sockaddr*>(&address),
                                     sizeof(address)) != 0) {
    return CloseBoth(&connection);
  }
  connections_.push_back(std::move(connection));
}

void FaultProxy::Read(Connection* connection, bool from_router) {
  char buffer[1 << 16];
  const ssize_t n = recv(from_router ? connection->router : connection->shard, buffer,
                         sizeof(buffer), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) return CloseBoth(connection);
  Piece piece;
  piece.bytes.assign(buffer, n);
  piece.due = absl::Now();
  if (from_router) {
    connection->seen += piece.bytes;
    connection->carries_calls |= connection->seen.find(kCallMethod) != std::string::npos;
    const size_t keep = std::min(connection->seen.size(), sizeof(kCallMethod));
    connection->seen.erase(0, connection->seen.size() - keep);
    connection->to_shard.push_back(std::move(piece));
  } else {
    connection->scanner.Flip(&piece.bytes, mode_ == Mode::kLie && connection->carries_calls);
    piece.due += absl::Nanoseconds(delay_nanos_.load());
    connection->to_router.push_back(std::move(piece));
  }
}

void FaultProxy::Write(Connection* connection, bool to_router, absl::Time now) {
  std::deque<Piece>& pieces = to_router ? connection->to_router : connection->to_shard;
  while (!pieces.empty() && pieces.front().due <= now) {
    Piece& piece = pieces.front();
    const ssize_t n =
        send(to_router ? connection->router : connection->shard, piece.bytes.data() + piece.n_sent,
             piece.bytes.size() - piece.n_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n < 0) return CloseBoth(connection);
    piece.n_sent += n;
    if (piece.n_sent == piece.bytes.size()) pieces.pop_front();
  }
}

}  // namespace gatefold

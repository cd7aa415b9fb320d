#include "gatefold/rpc/address.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace gatefold {
namespace {

constexpr size_t kMaxSocketPath = sizeof(sockaddr_un::sun_path) - 1;

absl::Status Bad(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("address \"", text, "\": ", why,
                   "; want host:port, [ipv6]:port, unix:/path/of/socket or unix-abstract:name"));
}

absl::StatusOr<Address> ParseLocal(absl::string_view text, absl::string_view path,
                                   Address::Kind kind) {
  if (path.empty()) return Bad(text, "the name is empty");
  if (path.find('\0') != absl::string_view::npos) return Bad(text, "the name has a zero byte");
  if (path.size() > kMaxSocketPath) {
    return Bad(text, absl::StrCat("the name has ", path.size(), " bytes, at most ", kMaxSocketPath,
                                  " fit into a socket address"));
  }
  Address address;
  address.kind = kind;
  address.path = std::string(path);
  return address;
}

// Names and IPv4: what DNS allows, and underscores, which compose files use.
bool GoodHost(absl::string_view host) {
  if (host.empty() || host.size() > 253) return false;
  for (char c : host) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '.' || c == '-' || c == '_';
    if (!good) return false;
  }
  return true;
}

bool GoodIpv6(absl::string_view host) {
  // A scope ("fe80::1%eth0") is no part of what inet_pton reads.
  in6_addr parsed;
  return inet_pton(AF_INET6, std::string(host.substr(0, host.find('%'))).c_str(), &parsed) == 1;
}

}  // namespace

std::string Address::ToString() const {
  switch (kind) {
    case Kind::kUnix:
      return absl::StrCat("unix:", path);
    case Kind::kUnixAbstract:
      return absl::StrCat("unix-abstract:", path);
    case Kind::kTcp:
      break;
  }
  if (host.find(':') != std::string::npos) return absl::StrCat("[", host, "]:", port);
  return absl::StrCat(host, ":", port);
}

absl::StatusOr<Address> ParseAddress(absl::string_view text) {
  absl::string_view rest = text;
  if (absl::ConsumePrefix(&rest, "unix-abstract:")) {
    return ParseLocal(text, rest, Address::Kind::kUnixAbstract);
  }
  if (absl::ConsumePrefix(&rest, "unix:")) {
    if (absl::StartsWith(rest, "//")) rest.remove_prefix(2);  // unix:///run/x names /run/x
    return ParseLocal(text, rest, Address::Kind::kUnix);
  }
  if (rest.find("://") != absl::string_view::npos) return Bad(text, "it is no URL");

  Address address;
  if (absl::ConsumePrefix(&rest, "[")) {
    const size_t close = rest.find(']');
    if (close == absl::string_view::npos) return Bad(text, "the bracket is not closed");
    address.host = std::string(rest.substr(0, close));
    if (!GoodIpv6(address.host)) return Bad(text, "no IPv6 address stands in the brackets");
    rest.remove_prefix(close + 1);
  } else {
    const size_t colon = rest.rfind(':');
    if (colon == absl::string_view::npos) return Bad(text, "the port is missing");
    if (rest.find(':') != colon) return Bad(text, "an IPv6 address needs brackets");
    address.host = std::string(rest.substr(0, colon));
    if (address.host.empty()) return Bad(text, "the host is missing (0.0.0.0 listens everywhere)");
    if (!GoodHost(address.host)) return Bad(text, "the host has a character that no host has");
    rest.remove_prefix(colon);
  }
  if (!absl::ConsumePrefix(&rest, ":") || rest.empty()) return Bad(text, "the port is missing");
  uint32_t port = 0;
  const bool digits = rest.find_first_not_of("0123456789") == absl::string_view::npos;
  if (!digits || !absl::SimpleAtoi(rest, &port) || port > 65535) {
    return Bad(text, "the port is no number from 0 to 65535");
  }
  address.port = static_cast<int>(port);
  return address;
}

absl::Status RemoveStaleSocket(const Address& address) {
  if (address.kind != Address::Kind::kUnix) return absl::OkStatus();
  struct stat found;
  if (lstat(address.path.c_str(), &found) != 0) return absl::OkStatus();  // bind will tell
  if (!S_ISSOCK(found.st_mode)) {
    return absl::AlreadyExistsError(
        absl::StrCat(address.ToString(), ": a file that is no socket is in the way"));
  }
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, address.path.data(), address.path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat(address.ToString(), ": socket"));
  const int result = connect(fd, reinterpret_cast<sockaddr*>(&name), sizeof name);
  const int error = result == 0 ? 0 : errno;
  close(fd);
  if (error != ECONNREFUSED && error != ENOENT) {  // connected, backlog full, or not ours to try
    return absl::AlreadyExistsError(
        absl::StrCat(address.ToString(), ": another process listens there",
                     error == 0 ? "" : absl::StrCat(" (", std::strerror(error), ")")));
  }
  if (unlink(address.path.c_str()) != 0 && errno != ENOENT) {
    return absl::ErrnoToStatus(errno, absl::StrCat(address.ToString(), ": unlink"));
  }
  return absl::OkStatus();
}

}  // namespace gatefold

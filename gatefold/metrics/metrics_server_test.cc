#include "gatefold/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/metrics/build_info.h"

namespace gatefold {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// A connection to the port; -1 if nobody listens there.
int Connect(int port, bool ipv6 = false) {
  sockaddr_in v4 = {};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port);
  v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  sockaddr_in6 v6 = {};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port);
  v6.sin6_addr = in6addr_loopback;
  const int fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int failed = ipv6 ? connect(fd, reinterpret_cast<sockaddr*>(&v6), sizeof(v6))
                          : connect(fd, reinterpret_cast<sockaddr*>(&v4), sizeof(v4));
  if (failed == 0) return fd;
  close(fd);
  return -1;
}

// The whole answer to the request, or "" if nobody listens.
std::string Ask(int fd, const std::string& request) {
  if (fd < 0) return "";
  EXPECT_EQ(send(fd, request.data(), request.size(), 0), request.size());
  std::string answer;
  char buffer[4096];
  for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, n);
  close(fd);
  return answer;
}

std::string Get(int port, const std::string& path, bool ipv6 = false) {
  return Ask(Connect(port, ipv6),
             absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\n\r\n"));
}

TEST(MetricsServerTest, ServesTheRegistryOnAFreePort) {
  Registry registry;
  AddBuildInfo(&registry, "1.2.3", "cpu", "avx2");
  auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);
  EXPECT_EQ((*server)->address(), absl::StrCat("127.0.0.1:", (*server)->port()));
  const std::string answer = Get((*server)->port(), "/metrics");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(answer, HasSubstr("gatefold_build_info{"));
}

TEST(MetricsServerTest, AllAddressesAreThoseOfIPv6Too) {
  Registry registry;
  auto server = MetricsServer::Start("0.0.0.0", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_THAT(Get((*server)->port(), "/metrics"), StartsWith("HTTP/1.1 200"));
  auto other = MetricsServer::Start("::1", 0, registry);
  if (!other.ok()) GTEST_SKIP() << "no IPv6 here";
  EXPECT_EQ((*other)->address(), absl::StrCat("[::1]:", (*other)->port()));
  EXPECT_THAT(Get((*other)->port(), "/metrics", /*ipv6=*/true), StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(Get((*server)->port(), "/metrics", /*ipv6=*/true), StartsWith("HTTP/1.1 200"));
}

TEST(MetricsServerTest, AnswersWhatIsNoPlainGet) {
  Registry registry;
  AddBuildInfo(&registry, "1.2.3", "cpu", "avx2");
  auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  const int port = (*server)->port();
  EXPECT_THAT(Get(port, "/metrics?name=up"), HasSubstr("gatefold_build_info{"));
  EXPECT_THAT(Ask(Connect(port), "GET /metrics HTTP/1.0\r\n\r\n"),
              HasSubstr("gatefold_build_info{"));
  EXPECT_THAT(Ask(Connect(port), "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
              StartsWith("HTTP/1.1 405"));
  const std::string head = Ask(Connect(port), "HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(head, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(head, EndsWith("\r\n\r\n"));
  EXPECT_EQ(Ask(Connect(port), "no HTTP\r\n\r\n"), "");
  const std::string too_long(10 << 10, 'x');
  EXPECT_EQ(Ask(Connect(port), absl::StrCat("GET /metrics HTTP/1.1\r\nX: ", too_long)), "");
  EXPECT_THAT(Get(port, "/metrics"), StartsWith("HTTP/1.1 200"));
}

TEST(MetricsServerTest, ScrapersThatDoNotAskKeepNobodyOut) {
  Registry registry;
  auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  std::vector<int> idle;
  for (int i = 0; i < 20; ++i) idle.push_back(Connect((*server)->port()));
  const absl::Time begin = absl::Now();
  EXPECT_THAT(Get((*server)->port(), "/metrics"), StartsWith("HTTP/1.1 200"));
  EXPECT_LT(absl::Now() - begin, absl::Seconds(9));  // they are left after ten
  // More than are served at once, some of which have not been accepted when it ends.
  for (int i = 0; i < 20; ++i) idle.push_back(Connect((*server)->port()));
  server->reset();
  for (int fd : idle) close(fd);
}

TEST(MetricsServerTest, ServesNoFiles) {
  Registry registry;
  auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  for (const char* path : {"/", "/etc/passwd", "/../../../etc/passwd"}) {
    const std::string answer = Get((*server)->port(), path);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 404")) << path;
  }
}

TEST(MetricsServerTest, OutlivesTheRegistry) {
  auto registry = std::make_unique<Registry>();
  auto server = MetricsServer::Start("127.0.0.1", 0, *registry);
  ASSERT_TRUE(server.ok()) << server.status();
  registry.reset();
  EXPECT_THAT(Get((*server)->port(), "/metrics"), StartsWith("HTTP/1.1 200"));
}

TEST(MetricsServerTest, SaysThatAPortIsTaken) {
  Registry registry;
  auto server = MetricsServer::Start("127.0.0.1", 0, registry);
  ASSERT_TRUE(server.ok()) << server.status();
  auto second = MetricsServer::Start("127.0.0.1", (*server)->port(), registry);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr((*server)->address()));
}

TEST(MetricsServerTest, RefusesHostsAndPortsThatAreNone) {
  Registry registry;
  for (const char* host : {"", "localhost", "127.0.0.1:80", "[::1]"}) {
    EXPECT_EQ(MetricsServer::Start(host, 0, registry).status().code(),
              absl::StatusCode::kInvalidArgument)
        << host;
  }
  for (int port : {-1, 65536}) {
    EXPECT_EQ(MetricsServer::Start("127.0.0.1", port, registry).status().code(),
              absl::StatusCode::kInvalidArgument)
        << port;
  }
}

}  // namespace
}  // namespace gatefold

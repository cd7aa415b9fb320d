#include "gatefold/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gatefold/metrics/build_info.h"

namespace gatefold {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// The whole answer to "GET path", or "" if nobody listens.
std::string Get(int port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request =
        absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    EXPECT_EQ(send(fd, request.data(), request.size(), 0), request.size());
    char buffer[4096];
    for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) answer.append(buffer, n);
  }
  close(fd);
  return answer;
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
  for (const char* host : {"", "localhost", "127.0.0.1:80,0.0.0.0"}) {
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

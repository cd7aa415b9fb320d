#include "gatefold/rpc/address.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "gatefold/rpc/wait_policy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::HasSubstr;

TEST(Address, ReadsEveryKind) {
  EXPECT_EQ(ParseAddress("10.0.0.7:7000")->host, "10.0.0.7");
  EXPECT_EQ(ParseAddress("10.0.0.7:7000")->port, 7000);
  EXPECT_EQ(ParseAddress("expert-0.f_expert:0")->port, 0);
  EXPECT_EQ(ParseAddress("[::1]:80")->host, "::1");
  EXPECT_EQ(ParseAddress("[fe80::1%eth0]:80")->host, "fe80::1%eth0");
  EXPECT_EQ(ParseAddress("unix:/run/x.sock")->path, "/run/x.sock");
  EXPECT_EQ(ParseAddress("unix:///run/x.sock")->path, "/run/x.sock");
  EXPECT_EQ(ParseAddress("unix:x.sock")->path, "x.sock");
  EXPECT_EQ(ParseAddress("unix-abstract:gf")->kind, Address::Kind::kUnixAbstract);
  for (const char* text : {"a.b:1", "[::1]:80", "unix:/run/x", "unix-abstract:y"}) {
    EXPECT_EQ(ParseAddress(text)->ToString(), text);
  }
}

TEST(Address, SaysWhatIsWrong) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "port is missing"},      {"host", "port is missing"},
      {"host:", "port is missing"}, {":80", "host is missing"},
      {"host:80a", "0 to 65535"},   {"host:-1", "0 to 65535"},
      {"host:65536", "0 to 65535"}, {"host:99999999999999999999", "0 to 65535"},
      {"::1:80", "needs brackets"}, {"[::1", "not closed"},
      {"[::1]", "port is missing"}, {"[10.0.0.1]:80", "no IPv6"},
      {"a b:80", "character"},      {"http://host:80", "no URL"},
      {"unix:", "empty"},           {"unix:/" + std::string(107, 'x'), "108 bytes, at most 107"},
      {"unix-abstract:", "empty"},  {std::string("unix:/a\0b", 9), "zero byte"},
  };
  for (const auto& [text, why] : cases) {
    const auto address = ParseAddress(text);
    ASSERT_FALSE(address.ok()) << text;
    EXPECT_EQ(address.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(address.status().message()), HasSubstr(why)) << text;
  }
}

class SocketFile : public ::testing::Test {
 protected:
  SocketFile() : path_(absl::StrCat(::testing::TempDir(), "/gf", getpid(), ".sock")) {
    std::filesystem::remove(path_);
    address_ = *ParseAddress(absl::StrCat("unix:", path_));
  }
  ~SocketFile() override { std::filesystem::remove(path_); }

  int Listen() {
    sockaddr_un name = {};
    name.sun_family = AF_UNIX;
    std::strcpy(name.sun_path, path_.c_str());
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
    EXPECT_EQ(listen(fd, 1), 0);
    return fd;
  }

  std::string path_;
  Address address_;
};

TEST_F(SocketFile, IsRemovedWhenItsOwnerIsGone) {
  close(Listen());
  EXPECT_TRUE(RemoveStaleSocket(address_).ok());
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_TRUE(RemoveStaleSocket(address_).ok());
}

TEST_F(SocketFile, IsKeptWhileSomebodyListens) {
  const int fd = Listen();
  EXPECT_EQ(RemoveStaleSocket(address_).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::exists(path_));
  close(fd);
}

TEST_F(SocketFile, IsKeptWhenItIsNoSocket) {
  close(open(path_.c_str(), O_CREAT | O_WRONLY, 0600));
  EXPECT_EQ(RemoveStaleSocket(address_).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST(WaitPolicy, ReadsEveryKind) {
  const auto spin = [](const char* text) { return ParseWaitPolicy(text).value().spin; };
  EXPECT_EQ(spin("block"), absl::ZeroDuration());
  EXPECT_EQ(spin("spin"), absl::InfiniteDuration());
  EXPECT_EQ(spin("hybrid:50us"), absl::Microseconds(50));
  EXPECT_EQ(spin("hybrid:1s"), absl::Seconds(1));
}

TEST(WaitPolicy, RefusesOtherText) {
  for (const char* text :
       {"", "busy", "hybrid", "hybrid:", "hybrid:50", "hybrid:-1us", "hybrid:0us", "hybrid:2s"}) {
    EXPECT_FALSE(ParseWaitPolicy(text).ok()) << text;
  }
}

TEST(WaitPolicy, TellsTimeoutFromShutdown) {
  for (const WaitPolicy& policy :
       {WaitPolicy::Block(), WaitPolicy::Spin(), WaitPolicy{absl::Microseconds(20)}}) {
    grpc::CompletionQueue queue;
    void* tag;
    bool ok;
    EXPECT_EQ(WaitForEvent(&queue, policy, absl::Now() + absl::Milliseconds(2), &tag, &ok),
              WaitResult::kTimeout);
    queue.Shutdown();
    EXPECT_EQ(WaitForEvent(&queue, policy, absl::InfiniteFuture(), &tag, &ok),
              WaitResult::kShutdown);
  }
}

}  // namespace
}  // namespace gatefold

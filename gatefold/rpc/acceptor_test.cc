#include "gatefold/rpc/acceptor.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

void ConnectOnce(const std::string& path) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path + 1, path.data(), path.size());
  const size_t size = offsetof(sockaddr_un, sun_path) + 1 + path.size();
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  (void)connect(fd, reinterpret_cast<sockaddr*>(&name), static_cast<socklen_t>(size));
  close(fd);
}

TEST(AcceptorTest, EndsWhileCallersComeFasterThanTheyAreTaken) {
  const std::string path = absl::StrCat("gatefold-", getpid(), "-acceptor");
  Acceptor acceptor(/*keeps_most=*/false, absl::Seconds(20));
  std::atomic<int> n_taken{0};
  const auto bound = acceptor.Listen(*ParseAddress("unix-abstract:" + path), [&](int fd) {
    close(fd);
    absl::SleepFor(absl::Milliseconds(1));
    ++n_taken;
  });
  ASSERT_TRUE(bound.ok()) << bound.status();
  acceptor.Start();
  std::atomic<bool> enough{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&] {
      while (!enough) ConnectOnce(path);
    });
  }
  while (n_taken < 100) std::this_thread::yield();
  absl::Notification ended;
  std::thread end([&] {
    acceptor.Stop();
    ended.Notify();
  });
  EXPECT_TRUE(ended.WaitForNotificationWithTimeout(absl::Seconds(10)));
  enough = true;
  for (std::thread& caller : callers) caller.join();
  end.join();
}

}  // namespace
}  // namespace gatefold

#include "gatefold/rpc/process.h"

#include <grpc/support/log.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

// Each in a process of its own: the settings are the process's.
template <typename Body>
int ExitStatus(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST(Process, WaitsForTheSignal) {
  const int status = ExitStatus([] {
    InitProcess();
    if (WaitForTermination(absl::Now() + absl::Milliseconds(2)) != 0) return 1;
    if (TerminationRequested()) return 2;
    kill(getpid(), SIGTERM);
    if (WaitForTermination(absl::InfiniteFuture()) != SIGTERM) return 3;
    if (WaitForTermination(absl::InfinitePast()) != SIGTERM) return 4;
    return TerminationRequested() ? 0 : 5;
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Process, SleepsWhileItWaits) {
  const int status = ExitStatus([] {
    InitProcess();
    for (const absl::Time deadline :
         {absl::InfiniteFuture(), absl::Now() + absl::Hours(1000), absl::Now() + absl::Hours(1)}) {
      std::thread waiter([deadline] { WaitForTermination(deadline); });
      clockid_t clock;
      pthread_getcpuclockid(waiter.native_handle(), &clock);
      absl::SleepFor(absl::Milliseconds(30));
      timespec used;
      clock_gettime(clock, &used);
      waiter.detach();
      if (absl::DurationFromTimespec(used) > absl::Milliseconds(15)) return 1;
    }
    return 0;
  });
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Process, EndsAtTheSecondSignal) {
  const int status = ExitStatus([] {
    InitProcess();
    kill(getpid(), SIGINT);
    WaitForTermination(absl::InfiniteFuture());
    kill(getpid(), SIGINT);
    WaitForTermination(absl::Now() + absl::Milliseconds(50));
    return 0;
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGINT);
}

TEST(Process, TellsOneOfManyComplaintsOfGrpc) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  ExitStatus([&] {
    dup2(ends[1], STDERR_FILENO);
    InitProcess();
    for (int i = 0; i < 1000; ++i) gpr_log(GPR_ERROR, "invalid value key=grpc-timeout");
    gpr_log(GPR_ERROR, "another");
    return 0;
  });
  close(ends[1]);
  std::string all;
  char piece[4096];
  for (ssize_t n = 0; (n = read(ends[0], piece, sizeof piece)) > 0;) all.append(piece, n);
  close(ends[0]);
  EXPECT_LE(std::count(all.begin(), all.end(), '\n'), 10) << all;
  EXPECT_NE(all.find("grpc-timeout"), std::string::npos);
  EXPECT_NE(all.find("another"), std::string::npos);
}

TEST(Process, SurvivesABrokenPipe) {
  const int status = ExitStatus([] {
    InitProcess();
    int ends[2];
    if (pipe(ends) != 0) return 1;
    close(ends[0]);
    return write(ends[1], "x", 1) == -1 ? 0 : 2;
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Process, LeavesThePollerToTheEnvironment) {
  const int status = ExitStatus([] {
    unsetenv("GRPC_POLL_STRATEGY");
    InitProcess();
    if (std::strcmp(getenv("GRPC_POLL_STRATEGY"), "poll") != 0) return 1;
    setenv("GRPC_POLL_STRATEGY", "epoll1", 1);
    InitProcess();
    return std::strcmp(getenv("GRPC_POLL_STRATEGY"), "epoll1") == 0 ? 0 : 2;
  });
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Process, TerminatesOnRequest) {
  const int status = ExitStatus([] {
    InitProcess();
    RequestTermination();
    return WaitForTermination(absl::InfiniteFuture()) == SIGTERM ? 0 : 1;
  });
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace gatefold

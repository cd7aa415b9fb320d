// Certificates that change under a server. With real time: gRPC looks at them once a second.

#include <atomic>
#include <thread>

#include "absl/time/clock.h"
#include "gatefold/rpc/test_certificates.h"
#include "gatefold/rpc/tls_fixture.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using TlsRotationTest = TlsFixture;

// A new connection each time, all the while the files change under the server: first what is
// broken, which must change nothing, then another certificate of another CA.
TEST_F(TlsRotationTest, BrokenFilesChangeNothingAndNewOnesAreUsedWithoutALostCall) {
  const TestCa next("next");
  WriteTestFile(Path("both.crt"), ca_.cert_pem() + next.cert_pem(), 0644);
  WriteTestFile(Path("next.crt"), next.cert_pem(), 0644);
  Serve(Files("server", "both"));
  ASSERT_FALSE(CallWith(Files("client", "next")).ok());
  const auto open = Channel(Files("client", "both"));
  std::atomic<bool> stop = false;
  std::atomic<int> n_calls = 0;
  std::thread load([&] {
    while (!stop) {
      const absl::Status old_channel = Call(open);
      EXPECT_TRUE(old_channel.ok()) << old_channel;
      const absl::Status new_channel = CallWith(Files("client", "both"));
      EXPECT_TRUE(new_channel.ok()) << new_channel;
      ++n_calls;
      absl::SleepFor(absl::Milliseconds(10));
    }
  });
  WriteTestFile(Path("server.crt"), "half a file", 0644);
  absl::SleepFor(absl::Milliseconds(2500));  // longer than it takes to be used
  EXPECT_FALSE(CallWith(Files("client", "next")).ok());
  next.Issue("server").Write(folder_, "server");
  absl::Status changed;
  const absl::Time limit = absl::Now() + absl::Seconds(20);
  do {
    absl::SleepFor(absl::Milliseconds(20));
    changed = CallWith(Files("client", "next"));
  } while (!changed.ok() && absl::Now() < limit);
  EXPECT_TRUE(changed.ok()) << changed;
  stop = true;
  load.join();
  EXPECT_GT(n_calls, 3);
}

}  // namespace
}  // namespace gatefold

// A machine whose NVIDIA driver is too old for this build: what is said of it, by the real runtime.

#include <stdlib.h>

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/process.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

class OldDriverTest : public testing::Test {
 protected:
  // Before all others, for the processes that are started.
  void SetUp() override {
    const char* const others = getenv("LD_LIBRARY_PATH");
    setenv("LD_LIBRARY_PATH",
           absl::StrCat(GATEFOLD_OLD_DRIVER_DIR, others == nullptr ? "" : ":",
                        others == nullptr ? "" : others)
               .c_str(),
           1);
  }

  std::unique_ptr<Process> StartShard(const std::string& backend) {
    auto shard = Process::Start("expert-service",
                                {"--model=tests/golden/mixtral/bf16", "--backend=" + backend,
                                 "--listen=unix:" + folder_.Path(backend), "--metrics_port=-1"},
                                folder_.Path(backend + ".log"));
    EXPECT_TRUE(shard.ok()) << shard.status();
    return *std::move(shard);
  }

  TemporaryFolder folder_;
};

TEST_F(OldDriverTest, CudaIsRefusedWithBothVersions) {
  const auto shard = StartShard("cuda");
  EXPECT_EQ(shard->Wait(absl::Now() + absl::Seconds(10)).value_or(-1), 1);
  EXPECT_THAT(shard->Log(), HasSubstr("the driver is for CUDA up to 11.8, this program for "));
}

TEST_F(OldDriverTest, AutoComputesOnTheCpuAndSaysWhy) {
  const auto shard = StartShard("auto");
  ASSERT_TRUE(shard->AwaitLine("ready", absl::Now() + absl::Seconds(30)).ok());
  EXPECT_THAT(shard->Log(), HasSubstr("backend=cpu"));
  EXPECT_THAT(shard->Log(), HasSubstr("the driver is for CUDA up to 11.8"));
}

}  // namespace
}  // namespace gatefold

#include "gatefold/worker/worker.h"

#include <cstdlib>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gatefold/worker/worker_flags.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

TEST(WorkerTest, ReadsSizesWithUnits) {
  EXPECT_EQ(*ParseBytes("--x", "1048576"), 1048576u);
  EXPECT_EQ(*ParseBytes("--x", "64MiB"), uint64_t{64} << 20);
  EXPECT_EQ(*ParseBytes("--x", "2GiB"), uint64_t{2} << 30);
  for (const char* text : {"", "MiB", "-1", "1.5GiB", "64MB", "99999999999TiB"}) {
    const absl::Status refused = ParseBytes("--x", text).status();
    EXPECT_THAT(std::string(refused.message()), testing::StartsWith("--x: \"")) << text;
  }
}

TEST(WorkerTest, ValidatesItsOptions) {
  WorkerOptions options;
  options.model_dir = "m";
  options.listen = "unix:/x";
  EXPECT_TRUE(options.Validate().ok());
  options.isa = "sse9";
  EXPECT_FALSE(options.Validate().ok());
  options.isa = "auto";
  options.n_threads = -1;
  EXPECT_FALSE(options.Validate().ok());
  options.n_threads = 0;
  for (const int spin_us : {-1, 1'000'001}) {
    options.spin_us = spin_us;
    EXPECT_EQ(options.Validate().message(),
              absl::StrCat("--spin-us is ", spin_us, ", must be within 0 and 1000000"));
  }
}

struct NoServer {
  std::string address() const { return ""; }
  std::string metrics_address() const { return ""; }
  void Drain() {}
};

TEST(WorkerDeathTest, EndsAtOnceIfItIsToldToWhileItStarts) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto start = []() -> absl::StatusOr<std::unique_ptr<NoServer>> {
    RequestTermination();
    absl::Notification never;
    never.WaitForNotificationWithTimeout(absl::Seconds(20));
    return absl::InternalError("it went on starting");
  };
  EXPECT_EXIT(
      {
        InitProcess();
        std::exit(ServeUntilTerminated("worker", start));
      },
      testing::ExitedWithCode(0), "terminated");
}

// A router could not read a description that has it, and says so of a frame, not of a flag.
TEST(WorkerTest, RefusesNamesThatNobodyCouldRead) {
  for (std::string WorkerOptions::*text :
       {&WorkerOptions::name, &WorkerOptions::node, &WorkerOptions::zone}) {
    WorkerOptions options;
    options.model_dir = "somewhere";
    options.listen = "unix:/x";
    options.*text = "k\xc3\xb6ln";
    EXPECT_TRUE(options.Validate().ok()) << options.Validate();
    options.*text = "k\xf6ln";
    EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(WorkerTest, ADrainTakesNoNegativeTime) {
  EXPECT_TRUE(CheckDrainLimit(absl::ZeroDuration()).ok());
  EXPECT_EQ(CheckDrainLimit(absl::Seconds(-5)).message(),
            "--drain-limit is -5s, must not be negative");
}

TEST(WorkerTest, DescribesTheModelAndTheNumerics) {
  auto weights = ModelWeights::Open("tests/golden/mixtral/bf16");
  ASSERT_TRUE(weights.ok()) << weights.status();
  WorkerOptions options;
  options.listen = "unix:/x";
  const auto a = DescribeWorker(options, **weights);
  const auto b = DescribeWorker(options, **weights);
  EXPECT_EQ(a.name(), "");  // routers know its address; what it listens on may be 0.0.0.0
  EXPECT_EQ(a.model_fingerprint(), (*weights)->Fingerprint());
  EXPECT_EQ(a.numerics_class(), b.numerics_class());
  EXPECT_NE(a.incarnation(), b.incarnation());
}

}  // namespace
}  // namespace gatefold

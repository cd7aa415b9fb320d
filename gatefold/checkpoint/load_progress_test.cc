#include "gatefold/checkpoint/load_progress.h"

#include <string>
#include <vector>

#include "gatefold/base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class LoadProgressTest : public ::testing::Test {
 protected:
  LoadProgress::Options Options(bool terminal) {
    return {.label = "experts",
            .total_bytes = uint64_t{100} << 20,
            .terminal = terminal,
            .write = [this](absl::string_view text) { lines_.emplace_back(text); },
            .now = [this] { return now_; }};
  }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::vector<std::string> lines_;
};

TEST_F(LoadProgressTest, WritesALineEveryFiveSecondsAwayFromATerminal) {
  LoadProgress progress(Options(/*terminal=*/false));
  progress.Add(20 << 20);
  now_ += absl::Seconds(4);
  progress.Add(10 << 20);
  EXPECT_THAT(lines_, IsEmpty());
  now_ += absl::Seconds(1);
  progress.Add(20 << 20);
  progress.Add(0);
  EXPECT_THAT(lines_, ElementsAre("loading experts  50% 50 of 100 MiB, 10 MiB/s, 5 s left\n"));
}

TEST_F(LoadProgressTest, RedrawsABarOnATerminal) {
  LoadProgress progress(Options(/*terminal=*/true));
  now_ += absl::Seconds(1);
  progress.Add(50 << 20);
  now_ += absl::Milliseconds(50);
  progress.Add(1);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], StartsWith("\rloading experts [###############...............]  50%"));
}

TEST_F(LoadProgressTest, SaysOnceThatItIsDone) {
  LoadProgress progress(Options(/*terminal=*/false));
  progress.Add(100 << 20);
  now_ += absl::Seconds(2);
  progress.Finish();
  progress.Finish();
  EXPECT_THAT(lines_, ElementsAre("loaded experts: 100.0 MiB in 2.0 s (50 MiB/s)\n"));
}

TEST_F(LoadProgressTest, IsAnEventAmongOthersInALogOfJson) {
  SetLogFormat(LogFormat::kJson);
  LoadProgress::Options options = Options(/*terminal=*/false);
  options.write = nullptr;
  testing::internal::CaptureStderr();
  LoadProgress(options).Finish();
  SetLogFormat(LogFormat::kKeyValue);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::EndsWith("\"event\":\"load_progress\",\"message\":"
                                "\"loaded experts: 0.0 MiB in 0.0 s (0 MiB/s)\"}\n"));
}

TEST_F(LoadProgressTest, IsNoTroubleThatALogOfWarningsHas) {
  SetLogLevel(LogLevel::kWarning);
  LoadProgress::Options options = Options(/*terminal=*/false);
  options.write = nullptr;
  testing::internal::CaptureStderr();
  LoadProgress(options).Finish();
  SetLogLevel(LogLevel::kInfo);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(LoadProgressTest, PromisesNothingBeyondTheWhole) {
  LoadProgress progress(Options(/*terminal=*/false));
  now_ += absl::Seconds(5);
  progress.Add(uint64_t{125} << 20);
  EXPECT_THAT(lines_, ElementsAre("loading experts 100% 125 of 100 MiB, 25 MiB/s, 0 s left\n"));
}

TEST_F(LoadProgressTest, ShowsUnknownTimeBeforeTheFirstByte) {
  LoadProgress progress(Options(/*terminal=*/false));
  now_ += absl::Seconds(6);
  progress.Add(0);
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], HasSubstr("unknown time left"));
}

}  // namespace
}  // namespace gatefold

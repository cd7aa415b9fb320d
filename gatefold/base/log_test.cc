#include "gatefold/base/log.h"

#include "gtest/gtest.h"

namespace gatefold {
namespace {

std::string Logged(LogFormat format, LogLevel level = LogLevel::kInfo) {
  SetLogFormat(format);
  testing::internal::CaptureStderr();
  LogEvent(level, "worker_state", {{"worker", "unix:/a b"}, {"n", 3}, {"why", "say \"no\"\n"}});
  SetLogFormat(LogFormat::kKeyValue);
  return testing::internal::GetCapturedStderr();
}

TEST(LogTest, QuotesWhatWouldBreakTheLine) {
  const std::string line = Logged(LogFormat::kKeyValue);
  EXPECT_NE(
      line.find(" info worker_state worker=\"unix:/a b\" n=3 why=\"say \\\"no\\\"\\u000a\"\n"),
      std::string::npos)
      << line;
}

TEST(LogTest, WritesJsonOnRequest) {
  const std::string line = Logged(LogFormat::kJson);
  EXPECT_NE(line.find("\"event\":\"worker_state\",\"worker\":\"unix:/a b\",\"n\":\"3\""),
            std::string::npos)
      << line;
}

TEST(LogTest, DropsWhatIsBelowTheLevel) {
  EXPECT_EQ(Logged(LogFormat::kKeyValue, LogLevel::kDebug), "");
}

}  // namespace
}  // namespace gatefold

#include "gatefold/base/log.h"

#include "gmock/gmock.h"
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

// A peer's name or message may hold what moves a terminal's cursor, and bytes that no JSON has.
TEST(LogTest, ShowsWhatWouldControlATerminal) {
  for (const LogFormat format : {LogFormat::kKeyValue, LogFormat::kJson}) {
    SetLogFormat(format);
    testing::internal::CaptureStderr();
    LogEvent(LogLevel::kInfo, "e",
             {{"why",
               "\x1b[2J\x7f \xc2\x9b"
               "2J \xff \xc3\xbc"}});
    SetLogFormat(LogFormat::kKeyValue);
    EXPECT_THAT(testing::internal::GetCapturedStderr(),
                testing::HasSubstr("\"\\u001b[2J\\u007f \\u009b2J ? \xc3\xbc\""));
  }
}

TEST(LogTest, DropsWhatIsBelowTheLevel) {
  EXPECT_FALSE(IsLogged(LogLevel::kDebug));
  EXPECT_EQ(Logged(LogFormat::kKeyValue, LogLevel::kDebug), "");
}

}  // namespace
}  // namespace gatefold

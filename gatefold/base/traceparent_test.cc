#include "gatefold/base/traceparent.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c";
constexpr char kSpan[] = "b7ad6b7169203331";

std::string Of(const std::string& version, const std::string& trace, const std::string& span,
               const std::string& rest) {
  return absl::StrCat(version, "-", trace, "-", span, "-", rest);
}

TEST(TraceparentTest, TakesWhatTheStandardSays) {
  for (const std::string& text :
       {Of("00", kTrace, kSpan, "01"), Of("00", kTrace, kSpan, "ff"), Of("cc", kTrace, kSpan, "00"),
        Of("01", kTrace, kSpan, "01-what-comes-later")}) {
    EXPECT_EQ(ValidTraceparent(text), text);
  }
}

TEST(TraceparentTest, LeavesOutWhatIsNone) {
  const std::string zeros(32, '0');
  std::string upper = kTrace;
  upper[1] = 'A';
  for (const std::string& text :
       {std::string(), std::string("00"), Of("ff", kTrace, kSpan, "01"),
        Of("0g", kTrace, kSpan, "01"), Of("00", zeros, kSpan, "01"),
        Of("00", kTrace, zeros.substr(0, 16), "01"), Of("00", upper, kSpan, "01"),
        Of("00", kTrace, kSpan, "0x"), Of("00", kTrace, kSpan, "01-more"),
        Of("01", kTrace, kSpan, "01.more"), Of("01", kTrace, kSpan, "01-\n"),
        Of("00", kTrace, kSpan, "1"),
        Of("01", kTrace, kSpan, absl::StrCat("01-", std::string(500, 'x')))}) {
    EXPECT_EQ(ValidTraceparent(text), "") << text;
  }
}

}  // namespace
}  // namespace gatefold

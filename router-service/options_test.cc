#include "router-service/options.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

TEST(ParseShareTest, TakesPercentsAndFractions) {
  EXPECT_DOUBLE_EQ(*ParseShare("5%"), 0.05);
  EXPECT_DOUBLE_EQ(*ParseShare("0.25"), 0.25);
  EXPECT_EQ(*ParseShare("0"), 0);
  EXPECT_EQ(*ParseShare("100%"), 1);
  for (const char* bad : {"", "%", "101%", "-1%", "1.5", "nan", "inf", "5 percent"}) {
    EXPECT_THAT(std::string(ParseShare(bad).status().message()), HasSubstr(bad)) << bad;
    EXPECT_FALSE(ParseShare(bad).ok()) << bad;
  }
}

TEST(RouterOptionsTest, NameThePolicyThatIsNone) {
  RouterOptions options;
  options.worker.model_dir = "somewhere";
  EXPECT_TRUE(options.Validate().ok()) << options.Validate();
  for (const char* policy : {"wait", "fail", "renormalise"}) {
    options.on_missing_expert = policy;
    EXPECT_TRUE(options.Validate().ok()) << policy;
  }
  options.on_missing_expert = "ignore";
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("\"ignore\""));
}

TEST(RouterOptionsTest, NameTheFlagThatCannotBe) {
  RouterOptions options;
  options.worker.model_dir = "somewhere";
  options.admin_listen = "127.0.0.1:70731";
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("--admin-listen: address"));
  options.admin_listen = "127.0.0.1:7073";
  EXPECT_TRUE(options.Validate().ok()) << options.Validate();
  options.gateway.max_request_time = absl::ZeroDuration();
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("--max-request-time is 0"));
  options.gateway.max_request_time = absl::Hours(1);
  options.scheduler.step_retry_timeout = absl::Seconds(-1);
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("--step-retry-timeout is -1s"));
}

}  // namespace
}  // namespace gatefold

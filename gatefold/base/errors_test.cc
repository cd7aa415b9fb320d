#include "gatefold/base/errors.h"

#include "gatefold/base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

TEST(Errors, NameTheFieldAndTheDescription) {
  const absl::Status status = BadField("config.top_p", "1.5 is outside (0, 1]");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "BAD_REQUEST");
  const ErrorDetails details = GetErrorDetails(status);
  ASSERT_EQ(details.violations.size(), 1);
  EXPECT_EQ(details.violations[0].field, "config.top_p");
  EXPECT_EQ(details.violations[0].description, "1.5 is outside (0, 1]");
}

TEST(Errors, CarryBothNumbers) {
  const absl::Status status = ContextLengthExceeded(5000, 4096);
  EXPECT_THAT(std::string(status.message()), HasSubstr("5000"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("4096"));
  EXPECT_THAT(GetErrorDetails(status).metadata,
              ElementsAre(Pair("prompt_tokens", "5000"), Pair("limit", "4096")));
}

TEST(Errors, InviteARetryOnlyWhereOneHelps) {
  EXPECT_EQ(RetryDelayOf(QueueFull(absl::Milliseconds(1500))), absl::Milliseconds(1500));
  EXPECT_EQ(RetryDelayOf(ModelNotFound("m")), absl::ZeroDuration());
}

TEST(Errors, KeepTheCodesOfTheTable) {
  const absl::Duration second = absl::Seconds(1);
  EXPECT_EQ(ModelNotFound("m").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DuplicateRequest("r").code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(QueueFull(second).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(KvCacheFull(second).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RateLimited("tokens", 60, second).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryDelayOf(RateLimited("tokens", 60, second)), second);
  EXPECT_EQ(ApiKeyMissing().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ApiKeyInvalid("no").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(AdminKeyRequired("Drain").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ModelLoading(second).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Draining(second).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ExpertUnavailable(1, 2, second).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(CheckpointMismatch("model", "a", "b").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(FeatureUnsupported("images").code(), absl::StatusCode::kUnimplemented);
}

TEST(Errors, KeepDetailsWhenAnnotated) {
  const absl::Status status = Annotate(ExpertUnavailable(3, 7, absl::Seconds(2)), "step 12");
  EXPECT_EQ(ReasonOf(status), "EXPERT_UNAVAILABLE");
  EXPECT_EQ(RetryDelayOf(status), absl::Seconds(2));
}

TEST(Errors, SurviveHostileTextInDetails) {
  ErrorDetails details;
  details.reason = "R3:abc";
  details.metadata = {{"k:1", std::string("\0M1:a", 5)}, {"", ""}};
  details.violations = {{"f", "9999999999:x"}};
  absl::Status status = absl::InternalError("x");
  SetErrorDetails(details, &status);
  const ErrorDetails read = GetErrorDetails(status);
  EXPECT_EQ(read.reason, details.reason);
  EXPECT_EQ(read.metadata, details.metadata);
  ASSERT_EQ(read.violations.size(), 1);
  EXPECT_EQ(read.violations[0].description, "9999999999:x");
}

TEST(Errors, GiveNoDetailsWhereTheyCannotBeRead) {
  for (const char* text : {"X1:a", "R5:abc", "R", "R99999999999999999999:a", "D3:abc", "M1:a"}) {
    absl::Status status = absl::InternalError("x");
    status.SetPayload("gatefold.dev/error-details", absl::Cord(text));
    EXPECT_EQ(ReasonOf(status), "") << text;
    EXPECT_EQ(RetryDelayOf(status), absl::ZeroDuration()) << text;
  }
}

TEST(Errors, HaveNoReasonWhenTheyAreOnlyACode) {
  EXPECT_EQ(ReasonOf(absl::InternalError("x")), "");
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
}

}  // namespace
}  // namespace gatefold

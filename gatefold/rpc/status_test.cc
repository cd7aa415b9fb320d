#include "gatefold/rpc/status.h"

#include "gatefold/base/errors.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::StartsWith;

void ExpectSame(const absl::Status& got, const absl::Status& want) {
  EXPECT_EQ(got.code(), want.code());
  EXPECT_EQ(got.message(), want.message());
  const ErrorDetails a = GetErrorDetails(got), b = GetErrorDetails(want);
  EXPECT_EQ(a.reason, b.reason);
  EXPECT_EQ(a.retry_delay, b.retry_delay);
  EXPECT_THAT(a.metadata, ::testing::UnorderedElementsAreArray(b.metadata));
  ASSERT_EQ(a.violations.size(), b.violations.size());
  for (size_t i = 0; i < a.violations.size(); ++i) {
    EXPECT_EQ(a.violations[i].field, b.violations[i].field);
    EXPECT_EQ(a.violations[i].description, b.violations[i].description);
  }
}

TEST(Status, KeepsEveryErrorOfTheTable) {
  const absl::Duration delay = absl::Milliseconds(1250);
  for (const absl::Status& status :
       {absl::OkStatus(), BadField("config.top_p", "must be in (0, 1]"),
        ContextLengthExceeded(9000, 4096), ModelNotFound("gpt"), DuplicateRequest("r-1"),
        QueueFull(delay), KvCacheFull(delay), ModelLoading(delay), Draining(delay),
        ExpertUnavailable(3, 70, delay), CheckpointMismatch("model fingerprint", "aa", "bb"),
        FeatureUnsupported("images"), absl::CancelledError("left"), absl::DeadlineExceededError(""),
        absl::UnauthenticatedError("key"), absl::PermissionDeniedError("key"),
        absl::InternalError("bug"), absl::AbortedError("x"), absl::DataLossError("y")}) {
    ExpectSame(FromGrpcStatus(ToGrpcStatus(status)), status);
  }
}

TEST(Status, SpeaksGoogleRpc) {
  const grpc::Status status = ToGrpcStatus(QueueFull(absl::Milliseconds(1500)));
  google::rpc::Status proto;
  ASSERT_TRUE(proto.ParseFromString(status.error_details()));
  EXPECT_EQ(proto.code(), 8);
  EXPECT_EQ(proto.message(), status.error_message());
  ASSERT_EQ(proto.details_size(), 2);
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(proto.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), "QUEUE_FULL");
  EXPECT_EQ(info.domain(), "gatefold.dev");
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(proto.details(1).UnpackTo(&retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 500000000);
}

TEST(Status, FitsIntoTrailersWhateverTheMessage) {
  ErrorDetails details;
  details.reason = "R";
  for (int i = 0; i < 100; ++i) details.violations.push_back({"f", std::string(200, 'x')});
  absl::Status status = absl::InvalidArgumentError(std::string(100000, 'm'));
  SetErrorDetails(details, &status);
  const grpc::Status sent = ToGrpcStatus(status);
  EXPECT_EQ(sent.error_message(), std::string(1024, 'm'));
  // base64 makes 4 bytes of 3; percent-encoding leaves plain text alone.
  EXPECT_LT(sent.error_message().size() + sent.error_details().size() * 4 / 3, 8000);
  EXPECT_EQ(ReasonOf(FromGrpcStatus(sent)), "R");
}

TEST(Status, CutsBetweenCharacters) {
  std::string message(1023, 'a');
  message += "\xc3\xa9 and more";
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(message)).error_message(), std::string(1023, 'a'));
}

TEST(Status, SendsNoBrokenUtf8) {
  absl::Status status = BadField("text", "byte \xff\xc3 at 3");
  const grpc::Status sent = ToGrpcStatus(status);
  google::rpc::Status proto;
  ASSERT_TRUE(proto.ParseFromString(sent.error_details()));
  EXPECT_EQ(GetErrorDetails(FromGrpcStatus(sent)).violations[0].description, "byte ?? at 3");
  EXPECT_THAT(sent.error_message(), StartsWith("text: byte ?? at 3"));
}

TEST(Status, KeepsCodeAndMessageWhenDetailsAreBroken) {
  const absl::Status read =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone", "\x12\xff nonsense"));
  EXPECT_EQ(read.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(read.message(), "gone");
  EXPECT_EQ(ReasonOf(read), "");
}

TEST(Status, MakesUnknownCodesUnknown) {
  EXPECT_EQ(FromGrpcStatus(grpc::Status(static_cast<grpc::StatusCode>(77), "x")).code(),
            absl::StatusCode::kUnknown);
}

TEST(Status, ReadsHostileDelaysWithoutOverflow) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(std::numeric_limits<int64_t>::max());
  retry.mutable_retry_delay()->set_nanos(std::numeric_limits<int32_t>::max());
  google::rpc::Status proto;
  proto.add_details()->PackFrom(retry);
  const absl::Status read =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::UNAVAILABLE, "x", proto.SerializeAsString()));
  EXPECT_GE(RetryDelayOf(read), absl::ZeroDuration());
  EXPECT_LE(RetryDelayOf(read), absl::Hours(1));
}

}  // namespace
}  // namespace gatefold

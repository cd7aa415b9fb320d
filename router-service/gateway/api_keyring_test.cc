#include "router-service/gateway/api_keyring.h"

#include <sys/stat.h>

#include <cstdio>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::HasSubstr;

constexpr char kGenerate[] = "/gatefold.inference.v1.InferenceService/GenerateText";
constexpr char kDrain[] = "/gatefold.cluster.v1.AdminService/DrainWorker";

class ApiKeyringTest : public ::testing::Test {
 protected:
  ApiKeyringTest() : path_(::testing::TempDir() + "/gatefold_api_keys") {
    Write(Line("alice", "requests_per_minute=2 tokens_per_minute=100") + Line("ops", "admin") +
          Line("gone", "revoked"));
    EXPECT_TRUE(Open().ok());
  }
  ~ApiKeyringTest() override { std::remove(path_.c_str()); }

  // The key of NAME is key-NAME.
  static std::string Line(const std::string& name, const std::string& properties = "") {
    ApiKey key;
    key.name = name;
    key.hash = HashApiKey("key-" + name);
    return absl::StrCat(FormatApiKey(key), " ", properties, "\n");
  }
  void Write(const std::string& text, mode_t mode = 0600) {
    std::remove(path_.c_str());
    std::ofstream(path_) << text;
    ASSERT_EQ(chmod(path_.c_str(), mode), 0);
  }
  absl::Status Open() {
    auto ring = ApiKeyring::Open({path_, absl::ZeroDuration(), [this] { return now_; }});
    if (!ring.ok()) return ring.status();
    ring_ = *std::move(ring);
    return absl::OkStatus();
  }
  absl::Status Ask(const std::string& authorization, const char* method = kGenerate) {
    return Authorize(*ring_, method, authorization).status();
  }

  const std::string path_;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::unique_ptr<ApiKeyring> ring_;
};

TEST_F(ApiKeyringTest, KnowsWhoHoldsAKey) {
  const auto caller = Authorize(*ring_, kGenerate, "Bearer key-alice");
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ((*caller)->name(), "alice");
  EXPECT_TRUE(Ask("bearer  key-ops ").ok());
}

TEST_F(ApiKeyringTest, WantsAKey) {
  for (const char* none : {"", "Bearer", "Bearer ", "Basic key-alice", "key-alice"}) {
    const absl::Status status = Ask(none);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated) << none;
    EXPECT_EQ(ReasonOf(status), "API_KEY_MISSING");
  }
  EXPECT_EQ(Ask("", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo").code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_TRUE(Ask("", "/grpc.health.v1.Health/Check").ok());
}

TEST_F(ApiKeyringTest, RefusesWrongAndRevokedKeys) {
  for (const std::string wrong : {"key-bob", "key-alic", "key-alice2", "key-gone"}) {
    const absl::Status status = Ask("Bearer " + wrong);
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << wrong;
    EXPECT_EQ(ReasonOf(status), "API_KEY_INVALID");
  }
  EXPECT_THAT(Ask("Bearer key-gone").message(), HasSubstr("revoked"));
  EXPECT_EQ(Ask("Bearer " + std::string(100000, 'x')).code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(ApiKeyringTest, KeepsWhatIsForOperatorsForAdmins) {
  for (const char* method : {kDrain, "/grpc.channelz.v1.Channelz/GetServers"}) {
    const absl::Status status = Ask("Bearer key-alice", method);
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << method;
    EXPECT_EQ(ReasonOf(status), "ADMIN_KEY_REQUIRED");
    EXPECT_TRUE(Ask("Bearer key-ops", method).ok());
  }
}

TEST_F(ApiKeyringTest, LimitsRequestsAndSaysWhenToComeBack) {
  EXPECT_TRUE(Ask("Bearer key-alice").ok());
  EXPECT_TRUE(Ask("Bearer key-alice").ok());
  const absl::Status status = Ask("Bearer key-alice");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "RATE_LIMITED");
  EXPECT_EQ(RetryDelayOf(status), absl::Seconds(30));
  EXPECT_TRUE(Ask("Bearer key-ops").ok());  // others are not held up
  now_ += absl::Seconds(30);
  EXPECT_TRUE(Ask("Bearer key-alice").ok());
}

TEST_F(ApiKeyringTest, HoldsTokensAndTakesBackWhatWasNotUsed) {
  const std::shared_ptr<Caller> alice = *Authorize(*ring_, kGenerate, "Bearer key-alice");
  TokenHold first, second, nobody;
  EXPECT_TRUE(first.Take(alice, 80).ok());
  EXPECT_EQ(RetryDelayOf(second.Take(alice, 30)), absl::Seconds(6));
  first.Settle(10);
  first.Settle(0);  // once only
  EXPECT_TRUE(second.Take(alice, 90).ok());
  EXPECT_FALSE(TokenHold().Take(alice, 1).ok());
  EXPECT_TRUE(nobody.Take(nullptr, 1 << 30).ok());
}

TEST_F(ApiKeyringTest, FollowsTheFile) {
  EXPECT_TRUE(Ask("Bearer key-alice").ok());
  EXPECT_TRUE(Ask("Bearer key-alice").ok());
  Write(Line("bob") + Line("alice", "requests_per_minute=2 tokens_per_minute=100"));
  ring_->Look();
  EXPECT_FALSE(Ask("Bearer key-bob").ok()) << "it may have been half a file";
  ring_->Look();
  EXPECT_TRUE(Ask("Bearer key-bob").ok());
  EXPECT_EQ(Ask("Bearer key-ops").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Ask("Bearer key-alice").code(), absl::StatusCode::kResourceExhausted)
      << "a key that stays keeps what it has used";
}

TEST_F(ApiKeyringTest, KeepsTheOldKeysWhenTheFileCannotBeUsed) {
  for (const char* bad : {"", "# nobody", "alice key-alice"}) {
    Write(bad);
    for (int i = 0; i < 3; ++i) ring_->Look();
    EXPECT_TRUE(Ask("Bearer key-ops").ok()) << bad;
  }
  Write(Line("bob"), 0644);
  for (int i = 0; i < 3; ++i) ring_->Look();
  EXPECT_TRUE(Ask("Bearer key-ops").ok());
  std::remove(path_.c_str());
  for (int i = 0; i < 3; ++i) ring_->Look();
  EXPECT_TRUE(Ask("Bearer key-ops").ok());
}

TEST_F(ApiKeyringTest, RefusesToOpenWhatOthersCanRead) {
  Write(Line("bob"), 0644);
  const absl::Status status = Open();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr(path_));
  Write("bob");
  EXPECT_THAT(Open().message(), HasSubstr("line 1"));
}

}  // namespace
}  // namespace gatefold

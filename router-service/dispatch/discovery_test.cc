#include "router-service/dispatch/discovery.h"

#include <map>
#include <utility>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

TEST(WorkerTargets, TellNamesFromAddresses) {
  const auto targets = WorkerTargets::Parse("10.0.0.1:7000, unix:/run/e.sock,dns:experts.ns:7001");
  ASSERT_TRUE(targets.ok()) << targets.status();
  EXPECT_THAT(targets->addresses, ElementsAre("10.0.0.1:7000", "unix:/run/e.sock"));
  EXPECT_THAT(targets->names, ElementsAre("experts.ns:7001"));
  EXPECT_TRUE(WorkerTargets::Parse("")->empty());
}

TEST(WorkerTargets, NameThePartThatIsWrong) {
  const auto error = [](const char* list) {
    return std::string(WorkerTargets::Parse(list).status().message());
  };
  EXPECT_THAT(error("a:1,nonsense"), HasSubstr("\"nonsense\""));
  EXPECT_THAT(error("dns:experts"), HasSubstr("\"dns:experts\""));
  EXPECT_THAT(error("dns:experts:0"), HasSubstr("dns:name:7000"));
  EXPECT_THAT(error("dns:unix:/x"), HasSubstr("dns:unix:/x"));
}

TEST(WorkerTargets, RefuseWhatIsThereTwice) {
  const auto error = [](const char* list) {
    return std::string(WorkerTargets::Parse(list).status().message());
  };
  EXPECT_EQ(error("a:1,b:1, a:1"), "\"a:1\" is there twice");
  EXPECT_EQ(error("dns:a:1,dns:a:1"), "\"dns:a:1\" is there twice");
  EXPECT_TRUE(WorkerTargets::Parse("a:1,a:2,dns:a:1").ok());
}

// DNS as the test says it is.
class DiscoveryTest : public testing::Test {
 protected:
  void Start() {
    Discovery::Options options;
    options.expert_names = {"experts:7000"};
    options.attention_names = {"attention:7001"};
    options.interval = absl::Milliseconds(1);
    options.resolve = [this](const std::string& host) -> absl::StatusOr<std::vector<std::string>> {
      absl::MutexLock lock(&mu_);
      ++n_asked_;
      const auto known = dns_.find(host);
      if (known == dns_.end()) return absl::UnavailableError("no such name");
      return known->second;
    };
    options.on_change = [this](const Discovery::Found& found) {
      absl::MutexLock lock(&mu_);
      found_ = found;
      ++n_changes_;
    };
    discovery_ = std::make_unique<Discovery>(std::move(options));
    Settle();
  }
  void Set(const std::string& host, std::vector<std::string> ips) {
    {
      absl::MutexLock lock(&mu_);
      dns_[host] = std::move(ips);
    }
    Settle();
  }
  // Until every name was asked again.
  void Settle() {
    absl::MutexLock lock(&mu_);
    const int until = n_asked_ + 6;
    const auto asked = [this, until]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return n_asked_ >= until; };
    ASSERT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&asked), absl::Seconds(30)));
  }
  Discovery::Found found() {
    absl::MutexLock lock(&mu_);
    return found_;
  }
  int n_changes() {
    absl::MutexLock lock(&mu_);
    return n_changes_;
  }

  absl::Mutex mu_;
  std::map<std::string, std::vector<std::string>> dns_;
  int n_asked_ = 0, n_changes_ = 0;
  Discovery::Found found_;
  std::unique_ptr<Discovery> discovery_;  // last: its thread uses the rest
};

TEST_F(DiscoveryTest, FollowsANameThatGrowsAndShrinks) {
  dns_["experts"] = {"10.0.0.2", "10.0.0.1", "[::1]"};
  Start();
  EXPECT_THAT(found().experts, ElementsAre("10.0.0.1:7000", "10.0.0.2:7000", "[::1]:7000"));
  EXPECT_THAT(found().attention, IsEmpty());
  EXPECT_EQ(n_changes(), 1);
  Set("attention", {"10.0.1.1"});
  EXPECT_THAT(found().attention, ElementsAre("10.0.1.1:7001"));
  Set("experts", {"10.0.0.2"});
  EXPECT_THAT(found().experts, ElementsAre("10.0.0.2:7000"));
  EXPECT_EQ(n_changes(), 3);
}

TEST_F(DiscoveryTest, KeepsWhatItKnowsWhileDnsDoesNotAnswer) {
  dns_["experts"] = {"10.0.0.1"};
  Start();
  {
    absl::MutexLock lock(&mu_);
    dns_.clear();
  }
  Settle();
  Set("experts", {});
  EXPECT_THAT(found().experts, ElementsAre("10.0.0.1:7000"));
  EXPECT_EQ(n_changes(), 1);
}

// It may be misspelt, which nothing else would tell.
TEST_F(DiscoveryTest, SaysOnceWhichNameDnsDoesNotKnow) {
  testing::internal::CaptureStderr();
  Start();
  Set("experts", {"10.0.0.1"});
  Set("experts", {});
  Settle();
  discovery_.reset();
  std::vector<std::string> told;
  for (const absl::string_view line :
       absl::StrSplit(testing::internal::GetCapturedStderr(), '\n')) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, " name_not_resolved ");
    if (parts.size() == 2) told.emplace_back(parts[1]);
  }
  EXPECT_THAT(told, UnorderedElementsAre("name=experts:7000 reason=\"no such name\"",
                                         "name=attention:7001 reason=\"no such name\"",
                                         "name=experts:7000 reason=\"no addresses\""));
}

}  // namespace
}  // namespace gatefold

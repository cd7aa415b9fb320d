// Expert-services hang, are slow, lie, or cannot be reached while 16 streams run. Every stream
// gives the tokens of a quiet run.

#include <signal.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fault/fault_test.h"
#include "tests/integration/metrics_page.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

class ExpertFaultsTest : public FaultTest {
 protected:
  void Start(const std::vector<std::string>& experts,
             const std::vector<std::string>& router_flags = {}, bool proxied = true,
             const std::function<bool()>& ready = nullptr) {
    ShapeOptions options;
    options.experts = experts;
    options.router_flags = router_flags;
    options.proxied = proxied;
    options.metrics = true;
    n_shards_ = static_cast<int>(experts.size());
    FaultTest::Start(options, ready);
    const auto page = MetricsPage::Fetch(shape_->router());
    ASSERT_TRUE(page.ok()) << page.status();
    std::cout << "hedged while quiet: " << page->Sum("gatefold_router_hedges_total") << " of "
              << page->Sum("gatefold_router_shard_calls_total") << " calls" << std::endl;
  }
  // The planner has given each expert to one shard, and each shard some.
  bool Shared() {
    uint32_t sum = 0, fewest = n_experts();
    for (const auto& worker : Shards()) {
      sum += worker.n_experts();
      fewest = std::min(fewest, worker.n_experts());
    }
    return sum == n_experts() && fewest > 0;
  }
  // Until a shard has answered more rows.
  bool AwaitUsed(int shard) {
    const uint64_t before = Shards()[shard].rows_served();
    return Await([&] { return Shards()[shard].rows_served() > before; });
  }
  double Metric(const std::string& name_and_labels) {
    const auto page = MetricsPage::Fetch(shape_->router());
    EXPECT_TRUE(page.ok()) << page.status();
    return page.ok() ? page->Value(name_and_labels) : 0;
  }

  int n_shards_ = 0;
};

const std::vector<std::string> kReplicas = {"0/2", "1/2", "0/2", "1/2"};

TEST_F(ExpertFaultsTest, AStoppedProcessIsNotMissed) {
  Start(kReplicas, {}, /*proxied=*/false);
  const int victim = Random(n_shards_);
  PauseUpTo(absl::Milliseconds(100));
  shape_->expert(victim)->Signal(SIGSTOP);
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_LT(Quantile(Report("SIGSTOP with a replica"), 1), kLongestPause);
  shape_->expert(victim)->Signal(SIGCONT);
  ASSERT_TRUE(AwaitAllReady());
  EXPECT_TRUE(AwaitUsed(victim));
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, WhatAStoppedProcessHeldAloneIsLoadedElsewhere) {
  Start({"none", "none", "none"}, {"--planner=on"}, /*proxied=*/false, [this] { return Shared(); });
  const int victim = Random(n_shards_);
  shape_->expert(victim)->Signal(SIGSTOP);
  ASSERT_TRUE(load_->AwaitTokens(50));
  Report("SIGSTOP without a replica, with a planner");
  shape_->expert(victim)->Signal(SIGCONT);
  ASSERT_TRUE(AwaitAllReady());
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, AConnectionThatAnswersNothingIsNotMissed) {
  Start(kReplicas);
  const int victim = Random(n_shards_);
  PauseUpTo(absl::Milliseconds(100));
  shape_->proxy(victim)->SetMode(FaultProxy::Mode::kSilentCalls);
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_LT(Quantile(Report("open but silent, with a replica"), 1), kLongestPause);
  EXPECT_GT(Metric("gatefold_router_hedges_total{won=\"true\"}"), 0);
  shape_->proxy(victim)->SetMode(FaultProxy::Mode::kForward);
  EXPECT_TRUE(AwaitUsed(victim));
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, AConnectionThatAnswersNothingIsReplaced) {
  Start({"0/2", "1/2"});
  shape_->proxy(Random(n_shards_))->SetMode(FaultProxy::Mode::kSilentCalls);
  ASSERT_TRUE(load_->AwaitTokens(20));
  EXPECT_LT(Quantile(Report("open but silent, without a replica"), 1), absl::Seconds(15));
  EXPECT_GT(Metric("gatefold_router_retries_total{reason=\"silent\"}"), 0);
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, ACutNetworkIsNotMissedAndHeals) {
  Start(kReplicas);
  const int victim = Random(n_shards_);
  PauseUpTo(absl::Milliseconds(100));
  shape_->proxy(victim)->SetMode(FaultProxy::Mode::kSilent);
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_LT(Quantile(Report("partition with a replica"), 1), kLongestPause);
  shape_->proxy(victim)->SetMode(FaultProxy::Mode::kForward);
  ASSERT_TRUE(AwaitAllReady());
  EXPECT_TRUE(AwaitUsed(victim));
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, ClosedConnectionsAreNotMissed) {
  Start(kReplicas);
  for (int i = 0; i < 5; ++i) {
    FaultProxy* proxy = shape_->proxy(Random(n_shards_));
    PauseUpTo(absl::Milliseconds(50));
    proxy->SetMode(FaultProxy::Mode::kCut);
    ASSERT_TRUE(load_->AwaitTokens(5));
    proxy->SetMode(FaultProxy::Mode::kForward);
  }
  EXPECT_LT(Quantile(Report("connections closed, with a replica"), 1), kLongestPause);
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, ASlowShardIsHidden) {
  // A call takes less than a millisecond here: one far beyond what hedging waits for, one below.
  constexpr absl::Duration kSlow = absl::Milliseconds(50);
  for (const absl::Duration delay : {kSlow, absl::Milliseconds(4)}) {
    Start(kReplicas);
    const int victim = Random(n_shards_), replica = (victim + 2) % n_shards_;
    shape_->proxy(victim)->SetDelay(delay);
    ASSERT_TRUE(load_->AwaitTokens(50));
    Report(absl::StrCat("until a shard slower by ", absl::FormatDuration(delay), " is known"));
    const auto before = Shards();
    for (int i = 0; i < FromEnvironment("GATEFOLD_FAULT_ROUNDS", 1); ++i) {
      ASSERT_TRUE(load_->AwaitTokens(100));
    }
    const StreamLoad::Pauses pauses = Report("then");
    const auto after = Shards();
    if (delay == kSlow) {
      EXPECT_LT(Quantile(pauses, 0.5), kSlow) << "every token waits for it";
      EXPECT_LT(after[victim].rows_served() - before[victim].rows_served(),
                (after[replica].rows_served() - before[replica].rows_served()) / 10);
    }
    shape_->proxy(victim)->SetDelay(absl::ZeroDuration());
    EXPECT_TRUE(AwaitUsed(victim));
    EXPECT_EQ(load_->Errors(), "");
    load_.reset();
  }
}

TEST_F(ExpertFaultsTest, VerificationNamesAShardThatLies) {
  Start({"all", "all"}, {"--verify=100%"});
  EXPECT_GT(Metric("gatefold_router_verified_rows_total{result=\"equal\"}"), 0);
  EXPECT_EQ(Metric("gatefold_router_verified_rows_total{result=\"different\"}"), 0);
  EXPECT_EQ(load_->Errors(), "");
  shape_->proxy(1)->SetMode(FaultProxy::Mode::kLie);
  std::string log;
  size_t at = std::string::npos;
  // A shard that happened to be late is left alone until a trial, and tells no lie meanwhile.
  for (int i = 0; i < 50 && at == std::string::npos; ++i) {
    ASSERT_TRUE(load_->AwaitTokens(30));
    log = shape_->router()->Log();
    at = log.find("answers_differ");
  }
  ASSERT_NE(at, std::string::npos);
  EXPECT_GT(Metric("gatefold_router_verified_rows_total{result=\"different\"}"), 0);
  const std::string row = log.substr(at, log.find('\n', at) - at);
  EXPECT_THAT(row, HasSubstr(shape_->expert_address(0)));
  EXPECT_THAT(row, HasSubstr(shape_->expert_address(1)));
  EXPECT_THAT(row, HasSubstr("layer="));
  EXPECT_THAT(row, HasSubstr("expert="));
}

}  // namespace
}  // namespace gatefold

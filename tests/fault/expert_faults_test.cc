// Faults of expert-services while 16 streams run. Every stream gives the tokens of a quiet run; how
// long it paused is printed. Timings are asserted with much room: the machine may be busy.
//
//   GATEFOLD_FAULT_KILLS=100   shards that are killed (default 10)
//   GATEFOLD_FAULT_SEED=7      for when and whom (default: drawn, and printed)

#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fault/stream_load.h"
#include "tests/integration/metrics_page.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

constexpr char kModel[] = "tests/golden/mixtral/bf16";
// The goal is 300 ms where a replica exists.
constexpr absl::Duration kLongestPause = absl::Milliseconds(5 * 300);

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  int value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

class ExpertFaultsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto quiet = Shape::Start(kModel, ShapeOptions());
    ASSERT_TRUE(quiet.ok()) << quiet.status();
    auto tokens = StreamLoad::QuietTokens((*quiet)->channel());
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    quiet_tokens_ = new std::vector<std::vector<int32_t>>(*std::move(tokens));
  }

  void SetUp() override {
    seed_ = FromEnvironment("GATEFOLD_FAULT_SEED", static_cast<int>(std::random_device()() >> 1));
    random_.seed(seed_);
    std::cout << "GATEFOLD_FAULT_SEED=" << seed_ << std::endl;
  }
  void TearDown() override { load_.reset(); }

  void Start(std::vector<std::string> experts, std::vector<std::string> router_flags = {},
             bool proxied = true) {
    ShapeOptions options;
    options.kind = ShapeOptions::Kind::kCluster;
    options.experts = std::move(experts);
    options.router_flags = std::move(router_flags);
    options.router_flags.push_back("--lanes=2");
    options.proxied = proxied;
    options.metrics = true;
    n_shards_ = static_cast<int>(options.experts.size());
    auto shape = Shape::Start(kModel, options);
    ASSERT_TRUE(shape.ok()) << shape.status();
    shape_ = *std::move(shape);
    cluster_ = cluster::v1::ClusterService::NewStub(shape_->channel());
    load_ = std::make_unique<StreamLoad>(shape_->channel(), *quiet_tokens_);
    // Latencies are known then, and no pause of the start counts.
    ASSERT_TRUE(load_->AwaitTokens(50));
    load_->TakePauses();
    ASSERT_TRUE(load_->AwaitTokens(50));
    quiet_pauses_ = load_->TakePauses();
  }
  // Since Start or the last Report.
  StreamLoad::Pauses Report(const std::string& what) {
    const StreamLoad::Pauses pauses = load_->TakePauses();
    std::cout << what << ": " << ToString(pauses) << "; quiet: " << ToString(quiet_pauses_)
              << std::endl;
    return pauses;
  }

  int Random(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }
  void PauseUpTo(absl::Duration longest) { absl::SleepFor(longest * (Random(1000) / 1000.0)); }

  // Until all shards are what they say, or a minute has passed.
  bool AwaitAllReady() {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (absl::Now() < deadline) {
      int n_ready = 0;
      for (const auto& worker : Shards()) {
        n_ready += worker.state() == cluster::v1::WORKER_STATE_READY;
      }
      if (n_ready == n_shards_) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }
  std::vector<cluster::v1::Worker> Shards() {
    grpc::ClientContext context;
    cluster::v1::ListWorkersResponse response;
    std::vector<cluster::v1::Worker> shards;
    if (!cluster_->ListWorkers(&context, {}, &response).ok()) return shards;
    for (const auto& worker : response.workers()) {
      if (worker.kind() == cluster::v1::WORKER_KIND_EXPERT) shards.push_back(worker);
    }
    return shards;
  }
  // Until the planner has given each expert to one shard, and each shard some.
  bool AwaitShared(uint32_t n_experts) {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (absl::Now() < deadline) {
      uint32_t sum = 0, fewest = n_experts;
      for (const auto& worker : Shards()) {
        sum += worker.n_experts();
        fewest = std::min(fewest, worker.n_experts());
      }
      if (sum == n_experts && fewest > 0) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }
  // Until a shard has answered more rows.
  bool AwaitUsed(int shard) {
    const uint64_t before = Shards()[shard].rows_served();
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (absl::Now() < deadline) {
      if (Shards()[shard].rows_served() > before) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }
  double Metric(const std::string& name_and_labels) {
    const auto page = MetricsPage::Fetch(shape_->router());
    EXPECT_TRUE(page.ok()) << page.status();
    return page.ok() ? page->Value(name_and_labels) : 0;
  }

  void KillSome(int n_kills) {
    for (int i = 0; i < n_kills; ++i) {
      const int victim = Random(n_shards_);
      PauseUpTo(absl::Milliseconds(100));
      ASSERT_TRUE(shape_->expert(victim)->Restart().ok());
      ASSERT_TRUE(load_->AwaitTokens(5)) << "after kill " << i << ", of shard " << victim;
      ASSERT_TRUE(AwaitAllReady()) << "after kill " << i << ", of shard " << victim;
      ASSERT_EQ(load_->Errors(), "");
    }
  }

  static std::vector<std::vector<int32_t>>* quiet_tokens_;
  int seed_ = 0;
  std::mt19937 random_;
  int n_shards_ = 0;
  std::unique_ptr<Shape> shape_;
  std::unique_ptr<cluster::v1::ClusterService::Stub> cluster_;
  std::unique_ptr<StreamLoad> load_;
  StreamLoad::Pauses quiet_pauses_;
};

std::vector<std::vector<int32_t>>* ExpertFaultsTest::quiet_tokens_ = nullptr;

const std::vector<std::string> kReplicas = {"0/2", "1/2", "0/2", "1/2"};

TEST_F(ExpertFaultsTest, KilledShardsWithReplicasAreNotMissed) {
  Start(kReplicas, {}, /*proxied=*/false);
  KillSome((FromEnvironment("GATEFOLD_FAULT_KILLS", 10) + 1) / 2);
  EXPECT_LT(Report("kill -9 with a replica").longest, kLongestPause);
}

TEST_F(ExpertFaultsTest, KilledShardsWithoutReplicasAreWaitedFor) {
  Start({"0/2", "1/2"}, {}, /*proxied=*/false);
  KillSome(FromEnvironment("GATEFOLD_FAULT_KILLS", 10) / 2);
  Report("kill -9 and a restart without a replica");
}

TEST_F(ExpertFaultsTest, AStoppedProcessIsNotMissed) {
  Start(kReplicas, {}, /*proxied=*/false);
  const int victim = Random(n_shards_);
  PauseUpTo(absl::Milliseconds(100));
  shape_->expert(victim)->Signal(SIGSTOP);
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_LT(Report("SIGSTOP with a replica").longest, kLongestPause);
  shape_->expert(victim)->Signal(SIGCONT);
  ASSERT_TRUE(AwaitAllReady());
  EXPECT_TRUE(AwaitUsed(victim));
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, WhatAStoppedProcessHeldAloneIsLoadedElsewhere) {
  Start({"none", "none", "none"}, {"--planner=on"}, /*proxied=*/false);
  ASSERT_TRUE(AwaitShared(4 * 8));
  load_->TakePauses();
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
  EXPECT_LT(Report("open but silent, with a replica").longest, kLongestPause);
  EXPECT_GT(Metric("gatefold_router_hedges_total{won=\"true\"}"), 0);
  shape_->proxy(victim)->SetMode(FaultProxy::Mode::kForward);
  EXPECT_TRUE(AwaitUsed(victim));
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, AConnectionThatAnswersNothingIsReplaced) {
  Start({"0/2", "1/2"});
  shape_->proxy(Random(n_shards_))->SetMode(FaultProxy::Mode::kSilentCalls);
  ASSERT_TRUE(load_->AwaitTokens(20));
  EXPECT_LT(Report("open but silent, without a replica").longest, absl::Seconds(15));
  EXPECT_GT(Metric("gatefold_router_retries_total{reason=\"silent\"}"), 0);
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, ACutNetworkIsNotMissedAndHeals) {
  Start(kReplicas);
  const int victim = Random(n_shards_);
  PauseUpTo(absl::Milliseconds(100));
  shape_->proxy(victim)->SetMode(FaultProxy::Mode::kSilent);
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_LT(Report("partition with a replica").longest, kLongestPause);
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
  EXPECT_LT(Report("connections closed, with a replica").longest, kLongestPause);
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, ASlowShardIsHidden) {
  Start(kReplicas);
  const int victim = Random(n_shards_);
  // More than ten times what a call takes here, even if the machine is busy.
  shape_->proxy(victim)->SetDelay(absl::Milliseconds(50));
  ASSERT_TRUE(load_->AwaitTokens(300));
  const StreamLoad::Pauses pauses = Report("a slow shard with a replica");
  EXPECT_GT(Metric("gatefold_router_hedges_total{won=\"true\"}"), 0);
  EXPECT_LT(pauses.p50, absl::Milliseconds(4 * 50)) << "every layer waits for it";
  shape_->proxy(victim)->SetDelay(absl::ZeroDuration());
  EXPECT_TRUE(AwaitUsed(victim));
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ExpertFaultsTest, VerificationNamesAShardThatLies) {
  Start({"all", "all"}, {"--verify=100%"});
  EXPECT_GT(Metric("gatefold_router_verified_rows_total{result=\"equal\"}"), 0);
  EXPECT_EQ(Metric("gatefold_router_verified_rows_total{result=\"different\"}"), 0);
  EXPECT_EQ(load_->Errors(), "");
  shape_->proxy(1)->SetMode(FaultProxy::Mode::kLie);
  ASSERT_TRUE(load_->AwaitTokens(30));
  EXPECT_GT(Metric("gatefold_router_verified_rows_total{result=\"different\"}"), 0);
  const std::string log = shape_->router()->Log();
  const size_t at = log.find("answers_differ");
  ASSERT_NE(at, std::string::npos);
  const std::string row = log.substr(at, log.find('\n', at) - at);
  EXPECT_THAT(row, HasSubstr(shape_->expert_address(0)));
  EXPECT_THAT(row, HasSubstr(shape_->expert_address(1)));
  EXPECT_THAT(row, HasSubstr("layer="));
  EXPECT_THAT(row, HasSubstr("expert="));
}

}  // namespace
}  // namespace gatefold

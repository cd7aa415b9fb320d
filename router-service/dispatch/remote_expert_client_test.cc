#include "router-service/dispatch/remote_expert_client.h"

#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router-service/dispatch/fake_shard.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

constexpr int kModelWidth = 8;
constexpr int kExperts = 4;
constexpr int kLayers = 2;
constexpr int kTopK = 2;
const std::set<int> kAll = {0, 1, 2, 3};

class RemoteExpertClientTest : public testing::Test {
 protected:
  void AddShard(std::set<int> experts) {
    shards_.push_back(std::make_unique<FakeShard>(absl::StrCat("shard-", shards_.size()),
                                                  std::move(experts), kLayers));
  }
  FakeShard& shard(int index) { return *shards_[index]; }

  // Once all shards that were added can be reached.
  void Connect() {
    Directory::Options directory;
    for (const auto& shard : shards_) directory.expert_addresses.push_back(shard->address());
    directory.interval = absl::Milliseconds(10);
    directory.starting_interval = absl::Milliseconds(5);
    ClusterIdentity identity;
    identity.n_layers = kLayers;
    identity.experts_per_layer = kExperts;
    directory_ = *Directory::Start(directory, identity);
    ASSERT_TRUE(Await([](const RoutingTable& table) {
      return std::all_of(table.experts.begin(), table.experts.end(), [](const WorkerEntry& entry) {
        return entry.state == WorkerEntry::State::kReady;
      });
    }));
    client_ = std::make_unique<RemoteExpertClient>(options_, 1, kModelWidth, directory_.get(),
                                                   &counters_);
  }
  bool Await(const std::function<bool(const RoutingTable&)>& ready) {
    return directory_->Await(ready, absl::Now() + absl::Seconds(20));
  }
  bool AwaitNotHeld(int expert) {
    return Await(
        [expert](const RoutingTable& table) { return table.HoldersOf(0, expert).empty(); });
  }

  // Rows of different numbers; each visits its two experts.
  absl::Status Run(const std::vector<std::pair<int, int>>& experts_of_row) {
    ++step_.id;
    const int n_rows = static_cast<int>(experts_of_row.size());
    experts_.clear();
    h_.clear();
    for (int row = 0; row < n_rows; ++row) {
      experts_.push_back(experts_of_row[row].first);
      experts_.push_back(experts_of_row[row].second);
      for (int d = 0; d < kModelWidth; ++d) h_.push_back(1.0f + row * 10 + d);
    }
    answers_.assign(n_rows * kTopK * kModelWidth, -1.0f);
    served_by_.assign(n_rows * kTopK, 0);
    routes_ = {.n_rows = n_rows, .top_k = kTopK, .experts = experts_, .weights = {}};
    return client_->Run(step_, 1, h_.data(), routes_, answers_.data(), served_by_.data());
  }
  // One row to expert 0, again and again.
  void RunUntil(const std::function<bool()>& reached) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!reached() && absl::Now() < deadline) {
      ASSERT_TRUE(Run({{0, 0}}).ok());
      ExpectRightAnswers();
    }
    EXPECT_TRUE(reached());
  }
  void ExpectRightAnswers() const {
    for (size_t slot = 0; slot < routes_.experts.size(); ++slot) {
      for (int d = 0; d < kModelWidth; ++d) {
        const float factor = served_by_[slot] == kNoShard ? 0.0f : routes_.experts[slot] + 1.0f;
        EXPECT_EQ(answers_[slot * kModelWidth + d], h_[slot / kTopK * kModelWidth + d] * factor);
      }
    }
  }

  std::vector<std::unique_ptr<FakeShard>> shards_;
  RemoteExpertOptions options_;
  DispatchCounters counters_{kMaxWorkers, kLayers* kExperts};
  std::unique_ptr<Directory> directory_;
  std::unique_ptr<RemoteExpertClient> client_;
  Step step_;
  std::vector<int32_t> experts_;  // of routes_
  Routes routes_;
  std::vector<float> h_, answers_;
  std::vector<uint8_t> served_by_;
};

TEST_F(RemoteExpertClientTest, SendsEachRowOnceToEachShard) {
  AddShard({0, 1});
  AddShard({2, 3});
  Connect();
  ASSERT_TRUE(Run({{0, 1}, {0, 2}, {1, 3}, {2, 3}}).ok());
  ExpectRightAnswers();
  EXPECT_EQ(counters_.messages[0], 1u);
  EXPECT_EQ(counters_.messages[1], 1u);
  EXPECT_EQ(counters_.rows_sent[0], 3u);  // rows 0, 1, 2; row 0 visits both of its experts
  EXPECT_EQ(counters_.rows_sent[1], 3u);
  EXPECT_EQ(counters_.rows_served[0], 4u);
  EXPECT_EQ(counters_.rows_served[1], 4u);
  EXPECT_EQ(counters_.rows_of_expert[kExperts + 2], 2u);
  EXPECT_EQ(counters_.queue_rows, 0u);
  // Rows in, an answer row per (row, expert) out, and a header.
  const size_t row_bytes = kModelWidth * sizeof(float);
  EXPECT_LE(counters_.bytes_sent[0], 3 * row_bytes + 128);
  EXPECT_LE(counters_.bytes_received[0], 4 * row_bytes + 128);
}

TEST_F(RemoteExpertClientTest, ALateCallIsSentToAReplicaAndTheFirstAnswerWins) {
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  const int late = static_cast<int>((step_.id + 1) % 2);  // whose turn it is for expert 0
  shard(late).Hold();
  const absl::Time start = absl::Now();
  ASSERT_TRUE(Run({{0, 2}, {0, 2}}).ok());
  EXPECT_LT(absl::Now() - start, options_.call_timeout / 4);
  ExpectRightAnswers();
  EXPECT_EQ(counters_.hedges_won, 1u);
  EXPECT_EQ(counters_.hedges_lost, 0u);
  EXPECT_EQ(counters_.queue_rows, 0u);
  // As long as it owes an answer the other one is asked.
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(Run({{0, 1}}).ok());
  EXPECT_EQ(shard(late).n_calls(), 1);
  // Its late answer is for nobody: what comes next is right, too.
  shard(late).Release();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (shard(late).n_calls() == 1 && absl::Now() < deadline) {
    ASSERT_TRUE(Run({{1, 3}, {0, 2}, {0, 1}}).ok());
    ExpectRightAnswers();
  }
  EXPECT_GT(shard(late).n_calls(), 1) << "it is never used again";
}

TEST_F(RemoteExpertClientTest, OfTwoAnswersToOnePairTheFirstIsTaken) {
  AddShard({0, 1});
  AddShard({0});
  Connect();
  step_.id = 1;  // so that the first shard gets both pairs of the next step
  shard(0).Hold();
  absl::Status status = absl::UnknownError("not run");
  std::thread run([&] { status = Run({{0, 1}}); });
  // The second shard answers for one pair, and only the first, late, can for the other.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (counters_.hedges_won == 0 && absl::Now() < deadline) std::this_thread::yield();
  shard(0).Release();
  run.join();
  ASSERT_TRUE(status.ok()) << status;
  ExpectRightAnswers();
  EXPECT_EQ(served_by_[0], 1);
  EXPECT_EQ(served_by_[1], 0);
  EXPECT_EQ(counters_.rows_served[0], 1u);
  EXPECT_EQ(counters_.rows_served[1], 1u);
  EXPECT_EQ(counters_.queue_rows, 0u);
}

TEST_F(RemoteExpertClientTest, AHedgedAnswerIsVerifiedToo) {
  options_.hedge.floor = absl::Milliseconds(25);  // so that no hedge is hedged on a busy machine
  options_.verify_share = 1;
  for (int i = 0; i < 3; ++i) AddShard(kAll);
  Connect();
  const int late = static_cast<int>((step_.id + 1) % 3);
  shard(late).Hold();
  ASSERT_TRUE(Run({{0, 3}}).ok());
  ExpectRightAnswers();
  EXPECT_EQ(counters_.hedges_won, 1u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(counters_.messages[i], 1u) << i;
}

TEST_F(RemoteExpertClientTest, AHedgeThatFailsIsMadeUpForAtAnotherReplica) {
  options_.hedge.floor = absl::Milliseconds(25);
  for (int i = 0; i < 3; ++i) AddShard(kAll);
  Connect();
  const int late = static_cast<int>((step_.id + 1) % 3);
  shard(late).Hold();
  shard((late + 1) % 3).refusal = internal::v1::REFUSAL_REASON_BUSY;
  const absl::Time start = absl::Now();
  ASSERT_TRUE(Run({{0, 3}}).ok());
  EXPECT_LT(absl::Now() - start, options_.call_timeout / 4);
  ExpectRightAnswers();
  EXPECT_EQ(served_by_[0], (late + 2) % 3);
  EXPECT_EQ(counters_.hedges_won, 1u);
  EXPECT_EQ(counters_.hedges_lost, 1u);
  EXPECT_EQ(counters_.queue_rows, 0u);
}

// As if there were none.
TEST_F(RemoteExpertClientTest, OtherRowsDoNotWaitForASilentShardWhoseReplicaRefuses) {
  options_.hedge.floor = absl::Milliseconds(25);
  options_.patience = absl::Milliseconds(50);
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  for (int i = 0; i < 2 * ShardPace::kFewest; ++i) ASSERT_TRUE(Run({{0, 2}}).ok());
  const int late = static_cast<int>((step_.id + 1) % 2);
  shard(late).Hold();
  shard(1 - late).refusal = internal::v1::REFUSAL_REASON_BUSY;
  EXPECT_EQ(ReasonOf(Run({{0, 2}})), kExpertUnavailable);
  EXPECT_EQ(counters_.retries_silent, 0u);
  EXPECT_EQ(counters_.queue_rows, 0u);
}

TEST_F(RemoteExpertClientTest, NothingIsHedgedIfThatIsOff) {
  options_.hedge.enabled = false;
  options_.call_timeout = absl::Milliseconds(200);
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  const int silent = static_cast<int>((step_.id + 1) % 2);
  shard(silent).Hold();
  ASSERT_TRUE(Run({{0, 2}}).ok());  // by giving up
  ExpectRightAnswers();
  EXPECT_EQ(counters_.hedges_won + counters_.hedges_lost, 0u);
  EXPECT_EQ(counters_.retries_silent, 1u);
}

TEST_F(RemoteExpertClientTest, AWaitEndsWhenAnotherShardAnnouncesTheExpert) {
  AddShard(kAll);
  AddShard({});
  Connect();
  shard(0).Hold();
  absl::Status status = absl::UnknownError("not run");
  std::thread run([&] { status = Run({{0, 1}, {2, 3}}); });
  shard(0).AwaitCalls(1);
  shard(1).SetExperts(kAll);
  run.join();
  ASSERT_TRUE(status.ok()) << status;
  ExpectRightAnswers();
  EXPECT_EQ(counters_.hedges_won, 1u);
}

TEST_F(RemoteExpertClientTest, ASilentShardWithoutAReplicaIsGivenUp) {
  options_.call_timeout = absl::Milliseconds(50);
  options_.max_attempts = 2;
  AddShard(kAll);
  Connect();
  shard(0).Hold();
  const absl::Status status = Run({{0, 1}});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), kExpertUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(shard(0).address()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("does not answer"));
  EXPECT_EQ(counters_.retries_silent, 2u);
  EXPECT_EQ(counters_.queue_rows, 0u);
}

TEST_F(RemoteExpertClientTest, AConnectionThatCarriesNothingIsReplaced) {
  options_.silence = absl::Milliseconds(50);
  options_.patience = absl::Seconds(10);  // many times what is usual, however busy the machine is
  AddShard(kAll);
  Connect();
  for (int i = 0; i < ShardPace::kFewest; ++i) ASSERT_TRUE(Run({{0, 1}}).ok());
  shard(0).HoldOpenStreams();
  const absl::Time start = absl::Now();
  ASSERT_TRUE(Run({{0, 1}}).ok());
  EXPECT_LT(absl::Now() - start, options_.call_timeout / 4);
  ExpectRightAnswers();
  EXPECT_EQ(counters_.retries_silent, 1u);
}

TEST_F(RemoteExpertClientTest, WhatIsSentAgainIsLookedAfterToo) {
  options_.hedge = {.enabled = false, .floor = absl::Milliseconds(1)};
  options_.call_timeout = absl::Milliseconds(500);
  options_.max_attempts = 2;
  // News of a broken stream that comes after the time at which the call was to be looked at.
  const auto traffic = std::make_shared<TrafficTable>();
  traffic->ObserveAttempts([](absl::string_view, absl::StatusCode, absl::Duration) {
    absl::SleepFor(absl::Milliseconds(50));
  });
  options_.channels.traffic = traffic;
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  const int first = static_cast<int>((step_.id + 1) % 2);
  for (const auto& shard : shards_) shard->Hold();
  absl::Status status;
  absl::Notification done;
  std::thread run([&] {
    status = Run({{0, 2}});
    done.Notify();
  });
  shard(first).AwaitCalls(1);
  std::thread die([&] { shard(first).Die(); });  // waits for the call that it holds
  EXPECT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(10))) << "it waits for ever";
  for (const auto& shard : shards_) shard->Release();
  die.join();
  run.join();
  EXPECT_EQ(ReasonOf(status), kExpertUnavailable) << status;
  EXPECT_EQ(counters_.retries_silent, 1u);
  EXPECT_EQ(counters_.queue_rows, 0u);
}

TEST_F(RemoteExpertClientTest, OtherRowsDoNotWaitForASilentShard) {
  options_.patience = absl::Milliseconds(20);
  AddShard({0, 1});
  AddShard({2, 3});
  Connect();
  for (int i = 0; i < ShardPace::kFewest; ++i) ASSERT_TRUE(Run({{0, 1}, {2, 3}}).ok());
  shard(0).Hold();
  const absl::Status status = Run({{2, 3}, {0, 1}});
  EXPECT_EQ(ReasonOf(status), kExpertUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(absl::StrCat(shard(0).address(), ": does not answer yet")));
  ASSERT_EQ(client_->missing().size(), 2u);
  for (const MissingExpert& missing : client_->missing()) {
    EXPECT_EQ(missing.row, 1);
    EXPECT_TRUE(missing.held);
  }
  EXPECT_EQ(client_->StateOf(1, 0), ExpertState::kSilent);
  EXPECT_EQ(client_->StateOf(1, 2), ExpertState::kLive);
  ASSERT_TRUE(Run({{2, 3}}).ok());
  // Known to be silent, it is sent nothing more.
  const int n_calls = shard(0).n_calls();
  const absl::Status again = Run({{2, 3}, {0, 1}});
  EXPECT_EQ(ReasonOf(again), kExpertUnavailable);
  EXPECT_THAT(std::string(again.message()),
              HasSubstr(absl::StrCat(shard(0).address(), ": does not answer yet")));
  ASSERT_EQ(client_->missing().size(), 2u);
  EXPECT_TRUE(client_->missing()[0].held);
  EXPECT_EQ(shard(0).n_calls(), n_calls);
  shard(0).Release();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (client_->StateOf(1, 0) != ExpertState::kLive && absl::Now() < deadline) {
    std::this_thread::yield();
  }
  ASSERT_TRUE(Run({{2, 3}, {0, 1}}).ok());
  ExpectRightAnswers();
  EXPECT_EQ(counters_.queue_rows, 0u);
}

// Each is the other's replica, but has been asked already.
TEST_F(RemoteExpertClientTest, OtherRowsDoNotWaitForTwoSilentReplicas) {
  options_.hedge.floor = absl::Milliseconds(10);
  options_.patience = absl::Milliseconds(50);
  AddShard({0, 1});
  AddShard({0, 1});
  AddShard({2, 3});
  Connect();
  for (int i = 0; i < 4 * ShardPace::kFewest; ++i) ASSERT_TRUE(Run({{0, 1}, {2, 3}}).ok());
  shard(0).Hold();
  shard(1).Hold();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(ReasonOf(Run({{2, 3}, {0, 1}})), kExpertUnavailable);
    ASSERT_FALSE(client_->missing().empty());
    for (const MissingExpert& missing : client_->missing()) {
      EXPECT_EQ(missing.row, 1);
      EXPECT_TRUE(missing.held);
    }
  }
  EXPECT_EQ(counters_.retries_silent, 0u);
  EXPECT_LE(counters_.hedges_lost, 2u);  // for each expert one
  EXPECT_EQ(client_->StateOf(1, 0), ExpertState::kSilent);
  ASSERT_TRUE(Run({{2, 3}}).ok());
  EXPECT_EQ(counters_.queue_rows, 0u);
}

TEST_F(RemoteExpertClientTest, ASlowShardIsLeftAloneBeforeAnythingIsLate) {
  options_.hedge.floor = absl::Seconds(10);
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  // So that what other work on the machine costs a call does not look slow beside it.
  constexpr int kUsualMs = 5;
  shard(0).delay_ms = shard(1).delay_ms = kUsualMs;
  // By turns. The first calls, which also connect, are forgotten then.
  for (int i = 0; i < 4 * ShardPace::kWindow; ++i) ASSERT_TRUE(Run({{0, 0}}).ok());
  shard(1).delay_ms = 200;
  for (int i = 0; i < 2 * ShardPace::kSlowInARow; ++i) ASSERT_TRUE(Run({{0, 0}}).ok());
  int n_slow = 0;
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Run({{0, 0}}).ok());
    n_slow += served_by_[0] == 1;
  }
  EXPECT_EQ(n_slow, 0);
  shard(1).delay_ms = kUsualMs;
  RunUntil([&] { return served_by_[0] == 1; });  // it is quick again
  EXPECT_EQ(counters_.hedges_won + counters_.hedges_lost, 0u);
}

TEST_F(RemoteExpertClientTest, NobodyWaitsForATrial) {
  options_.hedge.floor = absl::Seconds(10);
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  shard(1).refusal = internal::v1::REFUSAL_REASON_BUSY;
  RunUntil([&] { return counters_.retries[internal::v1::REFUSAL_REASON_BUSY] == 1; });
  shard(1).refusal = internal::v1::REFUSAL_REASON_UNSPECIFIED;
  shard(1).Hold();
  RunUntil([&] { return shard(1).n_calls() == 2; });
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Run({{0, 0}}).ok());
    EXPECT_EQ(served_by_[0], 0);
  }
  EXPECT_EQ(shard(1).n_calls(), 2);
  EXPECT_EQ(counters_.hedges_won + counters_.hedges_lost, 0u);
  EXPECT_EQ(counters_.queue_rows, 0u);
  shard(1).Release();
  RunUntil([&] { return served_by_[0] == 1; });
}

TEST_F(RemoteExpertClientTest, ARefusalEndsNoTrialWell) {
  options_.hedge.floor = absl::Seconds(10);  // a refused hedge would be counted, too
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  shard(1).refusal = internal::v1::REFUSAL_REASON_BUSY;
  RunUntil([&] { return shard(1).n_calls() == 3; });  // two trials
  EXPECT_EQ(counters_.retries[internal::v1::REFUSAL_REASON_BUSY], 1u);
}

TEST_F(RemoteExpertClientTest, WhatABrokenConnectionLostIsSentToAReplica) {
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(Run({{0, 1}}).ok());
  shard(0).Die();
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(Run({{0, 1}, {2, 3}}).ok());
    ExpectRightAnswers();
  }
}

TEST_F(RemoteExpertClientTest, AMissingExpertIsNamedWithWhoHeldItAndWhoNeedsIt) {
  AddShard({0, 1, 2});
  AddShard({3});
  Connect();
  ASSERT_TRUE(Run({{0, 3}}).ok());
  EXPECT_EQ(client_->StateOf(1, 3), ExpertState::kLive);
  shard(1).Die();
  ASSERT_TRUE(AwaitNotHeld(3));
  EXPECT_EQ(client_->StateOf(1, 3), ExpertState::kNotHeld);
  const absl::Status status = Run({{0, 1}, {1, 3}, {0, 2}, {2, 3}});
  EXPECT_EQ(ReasonOf(status), kExpertUnavailable);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("expert 3 of layer 1"));
  EXPECT_THAT(message,
              HasSubstr(absl::StrCat(shard(1).address(), ", which held it last, is unreachable")));
  ASSERT_EQ(client_->missing().size(), 2u);
  EXPECT_EQ(client_->missing()[0].row, 1);
  EXPECT_EQ(client_->missing()[1].row, 3);
  EXPECT_EQ(client_->missing()[1].expert, 3);
  ASSERT_TRUE(Run({{0, 1}, {0, 2}}).ok());
  EXPECT_TRUE(client_->missing().empty());
}

TEST_F(RemoteExpertClientTest, RowsGoOnWithoutAnExpertOnlyIfTheyMay) {
  options_.renormalise = true;
  AddShard({0, 1});
  AddShard({2, 3});
  Connect();
  ASSERT_TRUE(Run({{0, 3}}).ok());
  shard(1).Die();
  ASSERT_TRUE(AwaitNotHeld(3));
  ASSERT_TRUE(Run({{0, 1}, {1, 3}}).ok());
  ExpectRightAnswers();
  EXPECT_EQ(served_by_[2], 0);
  EXPECT_EQ(served_by_[3], kNoShard);
  EXPECT_EQ(counters_.rows_degraded, 1u);
  // A row that would lose all of its experts waits, and no other.
  const absl::Status status = Run({{0, 1}, {1, 3}, {2, 3}});
  EXPECT_EQ(ReasonOf(status), kExpertUnavailable);
  ASSERT_EQ(client_->missing().size(), 2u);
  for (const MissingExpert& missing : client_->missing()) EXPECT_EQ(missing.row, 2);
  EXPECT_EQ(counters_.rows_degraded, 1u);  // nothing came of this run
}

// Its shard gives an expert up before it answers for it: a row goes on without, once.
TEST_F(RemoteExpertClientTest, WhatARowGoesOnWithoutIsNotTakenLater) {
  options_.renormalise = true;
  options_.hedge.enabled = false;
  options_.patience = absl::Milliseconds(20);
  AddShard({0, 1});
  AddShard({0, 1});  // the replica for which these experts' rows are not left
  AddShard({2, 3});
  Connect();
  for (int i = 0; i < ShardPace::kFewest; ++i) ASSERT_TRUE(Run({{0, 3}, {0, 1}}).ok());
  for (const auto& shard : shards_) shard->Hold();
  const int n_calls = shard(2).n_calls();
  absl::Status status;
  absl::Notification done;
  std::thread run([&] {
    status = Run({{0, 3}, {0, 1}});
    done.Notify();
  });
  shard(2).AwaitCalls(n_calls + 1);
  shard(2).SetExperts({2});
  ASSERT_TRUE(AwaitNotHeld(3));
  EXPECT_FALSE(done.WaitForNotificationWithTimeout(absl::Milliseconds(200)));
  const uint64_t n_bytes = counters_.bytes_received[2];
  shard(2).Release();
  while (counters_.bytes_received[2] == n_bytes && !done.HasBeenNotified()) {
    std::this_thread::yield();
  }
  shard(0).Release();
  shard(1).Release();
  run.join();
  ASSERT_TRUE(status.ok()) << status;
  ExpectRightAnswers();
  EXPECT_EQ(served_by_[1], kNoShard);
  EXPECT_NE(served_by_[3], kNoShard);
  EXPECT_EQ(counters_.rows_degraded, 1u);
  EXPECT_EQ(counters_.queue_rows, 0u);
}

TEST_F(RemoteExpertClientTest, VerificationFindsAShardThatLies) {
  options_.verify_share = 1;
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  const auto n_compared = [&] { return counters_.verified_equal + counters_.verified_different; };
  const auto run_until_compared = [&](uint64_t n) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (n_compared() < n && absl::Now() < deadline) ASSERT_TRUE(Run({{0, 1}, {1, 2}}).ok());
    EXPECT_GE(n_compared(), n);
  };
  run_until_compared(20);
  EXPECT_EQ(counters_.verified_different, 0u);
  shard(1).lies = true;
  run_until_compared(n_compared() + 40);
  EXPECT_GT(counters_.verified_different, 0u);
  EXPECT_LT(counters_.verified_different, n_compared() / 2) << "one wrong row per call";
}

TEST_F(RemoteExpertClientTest, WhatHasNoReplicaIsCountedAsNotVerified) {
  options_.verify_share = 1;
  AddShard({0, 1});
  AddShard({2, 3});
  Connect();
  ASSERT_TRUE(Run({{0, 1}, {1, 2}}).ok());
  EXPECT_EQ(counters_.unverified_no_replica, 4u);
}

TEST_F(RemoteExpertClientTest, ABusyShardsRowsGoToAReplica) {
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  shard(0).refusal = internal::v1::REFUSAL_REASON_BUSY;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(Run({{0, 1}}).ok());
    ExpectRightAnswers();
  }
  EXPECT_GE(counters_.retries[internal::v1::REFUSAL_REASON_BUSY], 1u);
}

TEST_F(RemoteExpertClientTest, ABadRequestIsNotTriedAgain) {
  AddShard(kAll);
  AddShard(kAll);
  Connect();
  for (int i : {0, 1}) shard(i).refusal = internal::v1::REFUSAL_REASON_BAD_REQUEST;
  EXPECT_EQ(Run({{0, 2}}).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(shard(0).n_calls() + shard(1).n_calls(), 1);
}

}  // namespace
}  // namespace gatefold

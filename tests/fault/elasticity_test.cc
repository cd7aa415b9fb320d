// Expert-services come and go, and are drained and taken back, while 16 streams run; a planner says
// who holds what. No request notices. What streams waited is printed.

#include <signal.h>

#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/command.h"
#include "gtest/gtest.h"
#include "tests/fault/fault_test.h"

namespace gatefold {
namespace {

class ElasticityTest : public FaultTest {
 protected:
  static constexpr int kMost = 5;

  void StartShards(int n_started) {
    ShapeOptions options;
    options.experts.assign(kMost, "none");
    options.n_started = n_started;
    options.router_flags = {"--planner=on"};
    Start(options, [this, n_started] { return Even(n_started); });
  }

  // The first `n` shards have a share of the experts, and each expert is with one of them.
  bool Loaded(int n) {
    uint32_t sum = 0;
    const auto shards = Shards();
    for (int i = 0; i < n && i < static_cast<int>(shards.size()); ++i) {
      if (shards[i].state() != cluster::v1::WORKER_STATE_READY) return false;
      // Loads are even, not counts: half of a share is enough.
      if (2 * shards[i].n_experts() < n_experts() / n) return false;
      sum += shards[i].n_experts();
    }
    return sum >= n_experts();
  }
  // And with nobody else: the others are gone, or were never there.
  bool Even(int n) {
    uint32_t sum = 0;
    const auto shards = Shards();
    for (int i = 0; i < static_cast<int>(shards.size()); ++i) {
      if (i >= n && shards[i].state() == cluster::v1::WORKER_STATE_READY) return false;
      if (i < n) sum += shards[i].n_experts();
    }
    return sum == n_experts() && Loaded(n);
  }

  // From the `before` shards that there are to `after`, all at once.
  void Go(int before, int after) {
    load_->TakePauses();
    for (int i = before; i < after; ++i) ASSERT_TRUE(shape_->StartExpert(i).ok());
    for (int i = after; i < before; ++i) shape_->expert(i)->Signal(SIGTERM);
    EXPECT_TRUE(Await([&] { return Loaded(after); }));
    const StreamLoad::Pauses seen = Report(absl::StrCat(before, " to ", after, " shards"));
    moves_.insert(moves_.end(), seen.begin(), seen.end());
    EXPECT_TRUE(Await([&] { return Even(after); }));
    for (int i = after; i < before; ++i) {
      const auto exit_code = shape_->expert(i)->Wait(absl::Now() + absl::Seconds(20));
      ASSERT_TRUE(exit_code.ok()) << exit_code.status();
      EXPECT_EQ(*exit_code, 0);
    }
    ASSERT_EQ(load_->Errors(), "");
  }

  StreamLoad::Pauses moves_;  // of all of them
};

TEST_F(ElasticityTest, FromTwoShardsToFiveAndBack) {
  StartShards(2);
  for (int i = 0; i < FromEnvironment("GATEFOLD_FAULT_ROUNDS", 1); ++i) {
    for (const auto& [before, after] : std::vector<std::pair<int, int>>{
             {2, 3}, {3, 4}, {4, 5}, {5, 4}, {4, 3}, {3, 2}, {2, 5}, {5, 2}}) {
      ASSERT_NO_FATAL_FAILURE(Go(before, after));
    }
  }
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_EQ(load_->Errors(), "");
  Report("while experts move", moves_);
}

// Nobody calls, and there is nowhere else for what it holds; then there is.
TEST_F(ElasticityTest, AShardThatEndsStaysWhileItIsNeeded) {
  ShapeOptions options;
  options.experts.assign(3, "none");
  options.n_started = 2;
  options.router_flags = {"--planner=on"};
  // A little more than half of the experts each.
  const uint64_t expert_bytes = 3 * 64 * 48 * 2;
  const std::string capacity = absl::StrCat("--capacity=", 18 * expert_bytes);
  for (const int i : {0, 1, 2}) options.expert_flags[i] = {capacity, "--drain-limit=120s"};
  Start(options, [&] { return Even(2); });
  load_.reset();
  const auto n_experts_of = [&](int i) { return Shards()[i].n_experts(); };
  const uint32_t n_held = n_experts_of(1);
  shape_->expert(1)->Signal(SIGTERM);
  absl::SleepFor(absl::Milliseconds(2500));  // for a while nobody watches
  ASSERT_TRUE(shape_->router()->Restart().ok());
  EXPECT_EQ(shape_->expert(1)->Wait(absl::Now() + absl::Seconds(4)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(Await([&] { return Shards().size() == 3 && n_experts_of(1) > 0; }));
  EXPECT_LE(n_experts_of(1), n_held);
  ASSERT_TRUE(shape_->StartExpert(2).ok());
  const auto exit_code = shape_->expert(1)->Wait(absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(exit_code.ok()) << exit_code.status();
  EXPECT_EQ(*exit_code, 0);
  EXPECT_EQ(n_experts_of(0) + n_experts_of(2), n_experts());
  // Once no router has been there for ten seconds, none is.
  shape_->router()->Signal(SIGKILL);
  const absl::Time alone = absl::Now();
  shape_->expert(2)->Signal(SIGTERM);
  EXPECT_TRUE(shape_->expert(2)->Wait(alone + absl::Seconds(60)).ok());
  EXPECT_GT(absl::Now() - alone, absl::Seconds(9));
}

TEST_F(ElasticityTest, WhatADeadShardHeldIsLoadedElsewhere) {
  StartShards(3);
  shape_->expert(2)->Signal(SIGKILL);
  EXPECT_TRUE(Await([this] { return Even(2); }));
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_EQ(load_->Errors(), "");
}

TEST_F(ElasticityTest, ReplicasAreMadeAgainWhenAShardDies) {
  ShapeOptions options;
  options.experts.assign(3, "none");
  options.router_flags = {"--planner=on", "--min-replicas=2"};
  // The first `n` shards serve, and hold every expert twice.
  const auto twice = [this](int n) {
    uint32_t sum = 0;
    const auto shards = Shards();
    for (int i = 0; i < 3; ++i) {
      const bool serves = shards[i].state() == cluster::v1::WORKER_STATE_READY;
      if (serves != (i < n) || (serves && shards[i].n_sole_experts() > 0)) return false;
      if (serves) sum += shards[i].n_experts();
    }
    return sum == 2 * n_experts();
  };
  Start(options, [&] { return twice(3); });
  shape_->expert(2)->Signal(SIGKILL);
  EXPECT_TRUE(Await([&] { return twice(2); }));
  ASSERT_TRUE(load_->AwaitTokens(100));
  EXPECT_EQ(load_->Errors(), "");
}

// `gatefold drain` and `gatefold resume`, as an operator who restarts one after the other.
TEST_F(ElasticityTest, AttentionServicesAreDrainedInTurn) {
  TemporaryFolder folder;
  const std::string admin = absl::StrCat("unix:", folder.Path("admin"));
  ShapeOptions options;
  options.n_attention = 2;
  options.router_flags = {absl::StrCat("--admin-listen=", admin)};
  Start(options, [this] { return AllReady(); });
  const auto run = [&](const std::string& command, int index) {
    std::istringstream in;
    std::ostringstream out, err;
    cli::Interrupts interrupts;
    cli::Console console{in, out, err, false, &interrupts};
    EXPECT_EQ(cli::RunCommand({command, shape_->attention_address(index), "--router", admin}, {},
                              &console),
              0)
        << err.str();
  };
  const auto n_sequences = [this](int index) {
    for (const auto& worker : Workers()) {
      if (worker.address() == shape_->attention_address(index)) return worker.n_sequences();
    }
    return 0u;
  };
  for (const int drained : {0, 1}) {
    SCOPED_TRACE(drained);
    ASSERT_TRUE(Await([&] { return n_sequences(drained) > 0; }));
    run("drain", drained);
    EXPECT_EQ(n_sequences(drained), 0);
    // All streams go on at the other one, and new ones are opened there.
    ASSERT_TRUE(load_->AwaitTokens(2 * StreamLoad::kOutputTokens));
    EXPECT_EQ(n_sequences(drained), 0);
    // Routers learn every two seconds how many.
    EXPECT_TRUE(Await([&] { return n_sequences(1 - drained) > 0; }));
    run("resume", drained);
    EXPECT_EQ(load_->Errors(), "");
  }
  Report("attention-services drained in turn");
}

}  // namespace
}  // namespace gatefold

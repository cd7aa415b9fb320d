// Processes of every kind are killed while 16 streams run, at random times. Every stream gives the
// tokens of a quiet run.

#include <signal.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/fault/fault_test.h"

namespace gatefold {
namespace {

class KillTest : public FaultTest {
 protected:
  static int Kills() { return FromEnvironment("GATEFOLD_FAULT_KILLS", 10); }
  void Kill(Process* victim, const std::string& name) {
    SCOPED_TRACE(name);
    PauseUpTo(absl::Milliseconds(100));
    ASSERT_TRUE(victim->Restart().ok());
    ASSERT_TRUE(load_->AwaitTokens(5));
  }
};

// As deploy/drill.sh: three shards that a planner fills, two attention-services, two routers.
TEST_F(KillTest, NoStreamNoticesThatAnyProcessIsKilled) {
  ShapeOptions options;
  options.experts.assign(3, "none");
  options.n_attention = 2;
  options.n_routers = 2;
  options.planner_flags = {"--min-replicas=2"};
  const auto settled = [this] {
    for (const auto& shard : Shards()) {
      if (shard.n_experts() == 0 || shard.n_sole_experts() > 0) return false;
    }
    return AllReady();
  };
  Start(options, settled);

  std::vector<std::string> deck = {"expert", "attention", "planner", "router"};
  std::map<std::string, StreamLoad::Pauses> pauses;
  for (int i = 0; i < Kills(); ++i) {
    if (i % deck.size() == 0) std::shuffle(deck.begin(), deck.end(), random_);
    const std::string& kind = deck[i % deck.size()];
    Process* victim = kind == "expert"      ? shape_->expert(Random(3))
                      : kind == "attention" ? shape_->attention(Random(2))
                      : kind == "router"    ? shape_->router(Random(2))
                                            : shape_->planner();
    load_->TakePauses();
    Kill(victim, absl::StrCat("kill ", i, ", of ", kind));
    ASSERT_FALSE(HasFatalFailure());
    ASSERT_TRUE(Await(settled)) << "after kill " << i << ", of " << kind;
    ASSERT_EQ(load_->Errors(), "") << "after kill " << i << ", of " << kind;
    const StreamLoad::Pauses seen = load_->TakePauses();
    pauses[kind].insert(pauses[kind].end(), seen.begin(), seen.end());
  }
  for (const auto& [kind, seen] : pauses) {
    Report(absl::StrCat("kill -9, ", kind), seen);
    EXPECT_LT(Quantile(seen, 1), kLongestPause) << kind;
  }
}

TEST_F(KillTest, ShardsWithoutReplicasAreWaitedFor) {
  Start(ShapeOptions());  // two shards, each with one half
  for (int i = 0; i < (Kills() + 4) / 5; ++i) {
    Kill(shape_->expert(Random(2)), absl::StrCat("kill ", i));
    ASSERT_FALSE(HasFatalFailure());
    ASSERT_TRUE(AwaitAllReady()) << "after kill " << i;
    ASSERT_EQ(load_->Errors(), "") << "after kill " << i;
  }
  Report("kill -9 and a restart without a replica");
}

}  // namespace
}  // namespace gatefold

// Shards without the model's weights join a cluster under 16 streams and load from other shards,
// which die. Every stream has the tokens of a quiet run.

#include <signal.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gatefold/model/model_manifest.h"
#include "gtest/gtest.h"
#include "tests/fault/fault_test.h"
#include "tests/integration/metrics_page.h"

namespace gatefold {
namespace {

// A folder of the model with all that such a shard needs.
class FolderWithoutWeights {
 public:
  explicit FolderWithoutWeights(const std::string& model) {
    const auto weights = *ModelWeights::Open(model);
    dir_.Write(kManifestFile, ModelManifest::Make(*weights, nullptr)->ToJson(weights->config()));
    std::filesystem::copy_file(absl::StrCat(model, "/config.json"), dir_.File("config.json"));
  }
  const std::string& path() const { return dir_.path(); }

 private:
  TempDir dir_;
};

class ShardsWithoutWeightsTest : public FaultTest {
 protected:
  // Three shards, of which `n_started` are there; those of `without_weights` have none.
  void StartShards(int n_started, const std::vector<int>& without_weights) {
    ShapeOptions options;
    options.experts.assign(3, "none");
    for (const int shard : without_weights) options.models[shard] = folder_.path();
    options.n_started = n_started;
    options.metrics = true;
    options.router_flags = {"--planner=on", "--min-replicas=2"};
    Start(options, [this, n_started] {
      for (int i = 0; i < n_started; ++i) {
        if (!HoldsAll(i)) return false;
      }
      return true;
    });
  }
  bool HoldsAll(int shard) {
    const auto shards = Shards();
    return shard < static_cast<int>(shards.size()) &&
           shards[shard].state() == cluster::v1::WORKER_STATE_READY &&
           shards[shard].n_experts() == n_experts();
  }
  void ExpectStreamsGoOn() {
    EXPECT_TRUE(load_->AwaitTokens(2 * StreamLoad::kOutputTokens));
    EXPECT_EQ(load_->Errors(), "");
  }

  const FolderWithoutWeights folder_{Model()};
};

TEST_F(ShardsWithoutWeightsTest, GetThemFromAnotherAndSurviveIt) {
  StartShards(1, {1, 2});
  ASSERT_TRUE(shape_->StartExpert(1).ok());
  ASSERT_TRUE(Await([this] { return HoldsAll(1); }));
  ExpectStreamsGoOn();
  const auto page = MetricsPage::Fetch(shape_->expert(1));
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->Value("gatefold_expert_loads_total{source=\"shard\"}"), n_experts());
  EXPECT_EQ(page->Value("gatefold_expert_loads_total{source=\"checkpoint\"}"), 0);
  EXPECT_GT(page->Value("gatefold_expert_load_bytes_total{source=\"shard\"}"), 0);
  EXPECT_EQ(page->Sum("gatefold_expert_load_failures_total"), 0);
  // The only one with the files goes. What is left has memory alone, and a third shard gets that.
  shape_->expert(0)->Signal(SIGKILL);
  ASSERT_TRUE(shape_->expert(0)->Wait(absl::Now() + absl::Seconds(30)).ok());
  ExpectStreamsGoOn();
  ASSERT_TRUE(shape_->StartExpert(2).ok());
  ASSERT_TRUE(Await([this] { return HoldsAll(2); }));
  shape_->expert(1)->Signal(SIGKILL);
  ExpectStreamsGoOn();
  Report("shards without weights join, others die");
}

TEST_F(ShardsWithoutWeightsTest, AHolderThatDiesWhileItSendsCostsOneAttempt) {
  StartShards(2, {2});
  ASSERT_TRUE(shape_->StartExpert(2).ok());
  ASSERT_TRUE(shape_->expert(2)->AwaitLine("ready", absl::Now() + absl::Seconds(30)).ok());
  shape_->expert(0)->Signal(SIGKILL);
  ASSERT_TRUE(Await([this] { return HoldsAll(2); }));
  ExpectStreamsGoOn();
}

}  // namespace
}  // namespace gatefold

#include "expert-service/expert_loader.h"

#include <atomic>
#include <memory>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

// Refuses the first few loads, as a device without memory does.
class ShortOfMemory final : public ExpertBackend {
 public:
  explicit ShortOfMemory(int n_refused) : n_refused_(n_refused) {}
  std::string name() const override { return cpu_->name(); }
  std::string device() const override { return cpu_->device(); }
  uint64_t numerics_class() const override { return cpu_->numerics_class(); }
  absl::StatusOr<std::shared_ptr<const HeldExpert>> Load(const ExpertWeightsView& weights,
                                                         ThreadPool* threads) override {
    if (n_refused_-- > 0) return absl::ResourceExhaustedError("no memory");
    return cpu_->Load(weights, threads);
  }
  absl::Status Run(absl::Span<const HeldGroup> groups, const float* x, int n_rows, float* y) override {
    return cpu_->Run(groups, x, n_rows, y);
  }

 private:
  const std::unique_ptr<ExpertBackend> cpu_ = MakeCpuExpertBackend(nullptr);
  std::atomic<int> n_refused_;
};

class ExpertLoaderTest : public testing::Test {
 protected:
  void Start(uint64_t capacity_bytes = 0) {
    loader_ = std::make_unique<ExpertLoader>(
        weights_.get(), &store_,
        ExpertLoader::Options{capacity_bytes, [this] { ++n_changes_; }});
  }
  bool Settles() { return loader_->AwaitIdle(absl::Now() + absl::Seconds(30)); }

  std::unique_ptr<ModelWeights> weights_ = *ModelWeights::Open("tests/golden/mixtral/bf16");
  const std::unique_ptr<ExpertBackend> backend_ = MakeCpuExpertBackend(nullptr);
  ExpertStore store_{weights_.get(), backend_.get()};
  std::atomic<int> n_changes_{0};
  std::unique_ptr<ExpertLoader> loader_;
};

TEST_F(ExpertLoaderTest, LoadsWhatIsAssignedAndDropsTheRest) {
  Start();
  ASSERT_TRUE(loader_->Assign(1, {{0, 1}, {2, 3}}).ok());
  ASSERT_TRUE(Settles());
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{0, 1}, ExpertId{2, 3}));
  ASSERT_TRUE(loader_->Assign(2, {{2, 3}, {1, 0}}).ok());
  ASSERT_TRUE(Settles());
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{1, 0}, ExpertId{2, 3}));
  EXPECT_EQ(loader_->n_loading(), 0u);
  EXPECT_EQ(loader_->epoch(), 2u);
  EXPECT_EQ(n_changes_, 4);  // two came, one went, one came
  ASSERT_TRUE(loader_->Assign(3, {}).ok());
  ASSERT_TRUE(Settles());
  EXPECT_THAT(store_.Held(), IsEmpty());
  EXPECT_EQ(store_.loaded_bytes(), 0u);
}

TEST_F(ExpertLoaderTest, StartsFromWhatTheStoreHolds) {
  const std::vector<ExpertId> held = {{0, 0}, {0, 1}};
  ASSERT_TRUE(store_.Load(held, nullptr, nullptr).ok());
  Start();
  EXPECT_EQ(loader_->n_loading(), 0u);
  ASSERT_TRUE(loader_->Assign(5, {{0, 1}}).ok());
  ASSERT_TRUE(Settles());
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{0, 1}));
}

TEST_F(ExpertLoaderTest, KeepsTheNewerAssignment) {
  Start();
  ASSERT_TRUE(loader_->Assign(7, {{0, 1}}).ok());
  const absl::Status older = loader_->Assign(6, {{0, 2}});
  EXPECT_EQ(older.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(older.message()), HasSubstr("epoch is 6"));
  EXPECT_TRUE(loader_->Assign(7, {{0, 1}}).ok());  // sent twice
  EXPECT_EQ(loader_->Assign(7, {{0, 2}}).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Settles());
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{0, 1}));
}

TEST_F(ExpertLoaderTest, RefusesMoreThanItsCapacity) {
  const uint64_t one = weights_->ExpertBytes(0, 0);
  Start(2 * one);
  ASSERT_TRUE(loader_->Assign(1, {{0, 0}, {0, 1}}).ok());
  const absl::Status full = loader_->Assign(2, {{0, 0}, {0, 1}, {0, 2}});
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr(absl::StrCat("at most ", 2 * one)));
  EXPECT_EQ(loader_->epoch(), 1u);
  // Two others fit: what goes makes room for what comes.
  ASSERT_TRUE(loader_->Assign(2, {{1, 0}, {1, 1}}).ok());
  ASSERT_TRUE(Settles());
  EXPECT_EQ(store_.Held().size(), 2u);
}

TEST_F(ExpertLoaderTest, ALaterAssignmentOvertakesAnEarlierOne) {
  Start();
  std::vector<ExpertId> all;
  for (int layer = 0; layer < 4; ++layer) {
    for (int expert = 0; expert < 8; ++expert) all.push_back({layer, expert});
  }
  ASSERT_TRUE(loader_->Assign(1, all).ok());
  ASSERT_TRUE(loader_->Assign(2, {{3, 7}}).ok());
  ASSERT_TRUE(Settles());
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{3, 7}));
}

TEST_F(ExpertLoaderTest, TriesAgainWhatCouldNotBeLoaded) {
  ShortOfMemory backend(3);
  ExpertStore store(weights_.get(), &backend);
  ExpertLoader loader(weights_.get(), &store, {.retry_after = absl::Milliseconds(1)});
  ASSERT_TRUE(loader.Assign(1, {{0, 1}, {0, 2}}).ok());
  ASSERT_TRUE(loader.AwaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_THAT(store.Held(), ElementsAre(ExpertId{0, 1}, ExpertId{0, 2}));
}

TEST(ExpertStoreTest, SaysWhichExpertCouldNotBeLoaded) {
  auto weights = *ModelWeights::Open("tests/golden/mixtral/bf16");
  ShortOfMemory backend(1);
  ExpertStore store(weights.get(), &backend);
  const std::vector<ExpertId> experts = {{2, 5}};
  const absl::Status loaded = store.Load(experts, nullptr, nullptr);
  EXPECT_EQ(loaded.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(loaded.message()), HasSubstr("expert 5 of layer 2: no memory"));
  EXPECT_THAT(store.Held(), IsEmpty());
}

}  // namespace
}  // namespace gatefold

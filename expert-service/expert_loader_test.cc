#include "expert-service/expert_loader.h"

#include <atomic>
#include <memory>
#include <optional>

#include "absl/time/clock.h"
#include "expert-service/checkpoint_experts.h"
#include "expert-service/expert_runner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kModel[] = "tests/golden/mixtral/bf16";

// Refuses the first few loads, as a device without memory does.
class ShortOfMemory final : public ExpertBackend {
 public:
  explicit ShortOfMemory(int n_refused) : n_refused_(n_refused) {}
  std::string name() const override { return cpu_->name(); }
  std::string device() const override { return cpu_->device(); }
  bool can_read_back() const override { return true; }
  uint64_t numerics_class() const override { return cpu_->numerics_class(); }
  absl::StatusOr<std::shared_ptr<const HeldExpert>> Load(const ExpertWeightsView& weights,
                                                         ThreadPool* threads) override {
    if (n_refused_-- > 0) return absl::ResourceExhaustedError("no memory");
    return cpu_->Load(weights, threads);
  }
  absl::Status Run(absl::Span<const HeldGroup> groups, const float* x, int n_rows,
                   float* y) override {
    return cpu_->Run(groups, x, n_rows, y);
  }
  size_t HeldBytes(const ExpertLayout::Sizes& expert) const override {
    return cpu_->HeldBytes(expert);
  }

 private:
  const std::unique_ptr<ExpertBackend> cpu_ = MakeCpuExpertBackend(nullptr);
  std::atomic<int> n_refused_;
};

class ExpertLoaderTest : public testing::Test {
 protected:
  void Start(uint64_t capacity_bytes = 0) {
    loader_ = std::make_unique<ExpertLoader>(
        catalog_.get(), &source_, &store_,
        ExpertLoader::Options{capacity_bytes, [this] { ++n_changes_; }});
  }
  bool Settles() { return loader_->AwaitIdle(absl::Now() + absl::Seconds(30)); }

  std::unique_ptr<ExpertCatalog> catalog_ = *ExpertCatalog::Open(kModel, {});
  const std::unique_ptr<ExpertBackend> backend_ = MakeCpuExpertBackend(nullptr);
  CheckpointExperts source_{catalog_->weights(), backend_.get()};
  ExpertStore store_{catalog_->config(), backend_.get()};
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
  ASSERT_TRUE(source_.Fill(held, nullptr, nullptr, &store_).ok());
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
  const uint64_t one = catalog_->ExpertBytes(0, 0);
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

// Narrow experts are padded, and quantised ones have scales: the memory they may take is never
// exceeded, and little of it is left.
TEST_F(ExpertLoaderTest, CountsMemoryInBytesOfTheCheckpoint) {
  for (const char* model : {kModel, "tests/golden/llama/f32", "tests/golden/llama_biases"}) {
    for (int n_slices : {1, 3, 8}) {
      for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
        SCOPED_TRACE(absl::StrCat(model, ", ", n_slices, " slices, ", WeightKindName(kind)));
        const auto catalog = *ExpertCatalog::Open(model, {.n_slices = n_slices});
        const auto backend = MakeCpuExpertBackend(nullptr, {.weights = kind});
        const uint64_t memory = 300000;
        const uint64_t capacity = CheckpointCapacity(memory, *catalog, *backend);
        uint64_t held = 0, bytes = 0;
        const int n_experts = catalog->config().experts_per_layer();
        for (int i = 0;; ++i) {
          const auto view = catalog->weights()->Expert(0, i % n_experts);
          const auto expert = *backend->Load(view, nullptr);
          EXPECT_EQ(expert->size_bytes(), backend->HeldBytes(ExpertLayout::Of(view).sizes()));
          if (bytes + catalog->ExpertBytes(0, i % n_experts) > capacity) break;
          bytes += catalog->ExpertBytes(0, i % n_experts);
          held += expert->size_bytes();
        }
        EXPECT_LE(held, memory);
        EXPECT_GT(held, memory / 2);
      }
    }
  }
}

TEST_F(ExpertLoaderTest, RefusesMemoryThatHoldsNoExpert) {
  const auto catalog = *ExpertCatalog::Open(kModel, {});
  const auto backend = MakeCpuExpertBackend(nullptr, {.weights = WeightKind::kInt8});
  const uint64_t one = (*backend->Load(catalog->weights()->Expert(1, 1), nullptr))->size_bytes();
  for (const uint64_t enough : {uint64_t{0}, one}) {
    EXPECT_TRUE(CheckCapacity(enough, *catalog, *backend).ok()) << enough;
  }
  EXPECT_EQ(
      CheckCapacity(one - 1, *catalog, *backend).message(),
      absl::StrCat("--capacity is ", one - 1, " bytes, but one expert of this model takes ", one));
}

// Or no planner would ever give it one. Slices of a dense layer may differ in size.
TEST_F(ExpertLoaderTest, MemoryThatIsTakenHoldsTheLargestExpert) {
  for (const char* model : {kModel, "tests/golden/llama/f32", "tests/golden/llama_biases"}) {
    for (int n_slices : {1, 2, 3, 5, 8}) {
      for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
        SCOPED_TRACE(absl::StrCat(model, ", ", n_slices, " slices, ", WeightKindName(kind)));
        const auto catalog = *ExpertCatalog::Open(model, {.n_slices = n_slices});
        const auto backend = MakeCpuExpertBackend(nullptr, {.weights = kind});
        uint64_t memory = backend->HeldBytes(catalog->Layout(0, 0).sizes());
        while (!CheckCapacity(memory, *catalog, *backend).ok()) ++memory;
        EXPECT_GE(CheckpointCapacity(memory, *catalog, *backend), catalog->ExpertBytes(0, 0));
      }
    }
  }
}

// Ranges of an assignment may overlap.
TEST_F(ExpertLoaderTest, AnExpertNamedTwiceTakesItsRoomOnce) {
  Start(2 * catalog_->ExpertBytes(0, 0));
  const absl::Status assigned = loader_->Assign(1, {{0, 0}, {0, 1}, {0, 0}});
  EXPECT_TRUE(assigned.ok()) << assigned;
  ASSERT_TRUE(Settles());
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{0, 0}, ExpertId{0, 1}));
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
  CheckpointExperts source(catalog_->weights(), &backend);
  ExpertStore store(catalog_->config(), &backend);
  ExpertLoader loader(catalog_.get(), &source, &store, {.first_retry = absl::Milliseconds(1)});
  ASSERT_TRUE(loader.Assign(1, {{0, 1}, {0, 2}}).ok());
  ASSERT_TRUE(loader.AwaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_THAT(store.Held(), ElementsAre(ExpertId{0, 1}, ExpertId{0, 2}));
}

// Gives nothing until a test says so.
class Gate final : public ExpertSource {
 public:
  explicit Gate(ExpertSource* source) : source_(source) {}
  absl::StatusOr<LoadedExpert> Get(ExpertId id, ThreadPool* threads) override {
    {
      absl::MutexLock lock(&mu_);
      asked_.push_back(id);
      mu_.Await(absl::Condition(&open_));
      if (missing_ == id) return absl::NotFoundError("nobody");
    }
    return source_->Get(id, threads);
  }
  void SetHolders(std::vector<ExpertHolder> holders) override { n_holders = holders.size(); }
  bool AwaitAsked(size_t n, absl::Duration limit = absl::Seconds(30)) {
    absl::MutexLock lock(&mu_);
    const auto enough = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return asked_.size() >= n; };
    return mu_.AwaitWithTimeout(absl::Condition(&enough), limit);
  }
  size_t n_asked() {
    absl::MutexLock lock(&mu_);
    return asked_.size();
  }
  void Open() {
    absl::MutexLock lock(&mu_);
    open_ = true;
  }
  void Miss(std::optional<ExpertId> id) {
    absl::MutexLock lock(&mu_);
    missing_ = id;
  }
  std::atomic<size_t> n_holders{0};

 private:
  ExpertSource* const source_;
  absl::Mutex mu_;
  bool open_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<ExpertId> missing_ ABSL_GUARDED_BY(mu_);
  std::vector<ExpertId> asked_ ABSL_GUARDED_BY(mu_);
};

TEST_F(ExpertLoaderTest, LoadsSeveralAtOnceAndComputesMeanwhile) {
  const std::vector<ExpertId> held = {{0, 0}};
  ASSERT_TRUE(source_.Fill(held, nullptr, nullptr, &store_).ok());
  Gate gate(&source_);
  ExpertLoader loader(catalog_.get(), &gate, &store_, {.n_threads = 3});
  ASSERT_TRUE(loader.Assign(1, {{0, 0}, {0, 1}, {0, 2}, {0, 3}, {1, 0}}).ok());
  EXPECT_TRUE(gate.AwaitAsked(3));
  // While they hang, what is held computes, and the loader answers.
  ExpertRunner runner(&store_);
  const std::vector<ExpertVisit> visits = {{0, {0}, {0}}};
  const std::vector<float> x(64, 1);
  std::vector<float> y(64);
  EXPECT_TRUE(runner.Run(0, visits, x.data(), 1, y.data()).ok());
  EXPECT_EQ(loader.n_loading(), 4u);
  EXPECT_EQ(gate.n_asked(), 3u);
  gate.Open();
  ASSERT_TRUE(loader.AwaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_EQ(store_.Held().size(), 5u);
}

TEST_F(ExpertLoaderTest, WhatNobodyGivesHoldsUpNothingElse) {
  Gate gate(&source_);
  gate.Open();
  gate.Miss(ExpertId{0, 1});
  ExpertLoader loader(
      catalog_.get(), &gate, &store_,
      {.n_threads = 1, .first_retry = absl::Milliseconds(1), .last_retry = absl::Milliseconds(1)});
  ASSERT_TRUE(loader.Assign(1, {{0, 1}, {0, 2}}, {{"unix:/x", {{0, 1}}}}).ok());
  EXPECT_EQ(gate.n_holders, 1u);
  ASSERT_TRUE(gate.AwaitAsked(5));
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{0, 2}));
  gate.Miss(std::nullopt);
  ASSERT_TRUE(loader.AwaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{0, 1}, ExpertId{0, 2}));
}

TEST_F(ExpertLoaderTest, NeverTakesMoreThanItsCapacityWhileAssignmentsChange) {
  const uint64_t one = catalog_->ExpertBytes(0, 0);
  Gate gate(&source_);
  ExpertLoader loader(catalog_.get(), &gate, &store_, {.capacity_bytes = 2 * one, .n_threads = 4});
  ASSERT_TRUE(loader.Assign(1, {{0, 0}, {0, 1}}).ok());
  EXPECT_TRUE(gate.AwaitAsked(2));
  // The two are on their way and not wanted any more: those that follow have no room yet.
  ASSERT_TRUE(loader.Assign(2, {{1, 0}, {1, 1}}).ok());
  EXPECT_FALSE(gate.AwaitAsked(3, absl::Milliseconds(100)));
  gate.Open();
  ASSERT_TRUE(loader.AwaitIdle(absl::Now() + absl::Seconds(30)));
  EXPECT_THAT(store_.Held(), ElementsAre(ExpertId{1, 0}, ExpertId{1, 1}));
}

TEST_F(ExpertLoaderTest, CountsTheTimeOfWhatIsAssignedAgainWhileItIsOnItsWay) {
  absl::Mutex mu;
  std::vector<absl::Duration> took;
  Gate gate(&source_);
  ExpertLoader loader(catalog_.get(), &gate, &store_, {.on_complete = [&](absl::Duration time) {
                        absl::MutexLock lock(&mu);
                        took.push_back(time);
                      }});
  ASSERT_TRUE(loader.Assign(1, {{0, 0}}).ok());
  ASSERT_TRUE(gate.AwaitAsked(1));
  ASSERT_TRUE(loader.Assign(2, {}).ok());
  ASSERT_TRUE(loader.Assign(3, {{0, 0}}).ok());
  gate.Open();
  ASSERT_TRUE(loader.AwaitIdle(absl::Now() + absl::Seconds(30)));
  absl::MutexLock lock(&mu);
  EXPECT_THAT(took, ElementsAre(testing::AllOf(testing::Ge(absl::ZeroDuration()),
                                               testing::Lt(absl::Hours(1)))));
}

TEST(CheckpointExpertsTest, SaysWhichExpertCouldNotBeLoaded) {
  auto weights = *ModelWeights::Open(kModel);
  ShortOfMemory backend(1);
  ExpertStore store(weights->config(), &backend);
  const std::vector<ExpertId> experts = {{2, 5}};
  const absl::Status loaded =
      CheckpointExperts(weights.get(), &backend).Fill(experts, nullptr, nullptr, &store);
  EXPECT_EQ(loaded.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(loaded.message()), HasSubstr("expert 5 of layer 2: no memory"));
  EXPECT_THAT(store.Held(), IsEmpty());
}

}  // namespace
}  // namespace gatefold

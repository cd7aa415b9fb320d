#include "attention-service/sequence_table.h"

#include <memory>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr KvShape kShape = {.n_layers = 1, .layout = {.n_kv_heads = 1, .head_dim = 4}};

SequenceSpec Spec(SequenceId id, int n_positions) {
  SequenceSpec spec;
  spec.id = id;
  spec.n_positions = n_positions;
  return spec;
}

class SequenceTableTest : public testing::Test {
 protected:
  std::unique_ptr<KvBlockPool> pool_ = *KvBlockPool::Create(kShape, kShape.BlockBytes() * 4);
  PrefixCache cache_{pool_.get()};
};

TEST_F(SequenceTableTest, ReservesWholeBlocksAndGivesThemBack) {
  SequenceTable table(&cache_);
  ASSERT_TRUE(table.Open(Spec(1, 17), 1).ok());
  EXPECT_EQ(pool_->n_free(), 2);
  ASSERT_TRUE(table.Open(Spec(2, 32), 1).ok());
  EXPECT_EQ(table.Open(Spec(3, 1), 1).status().code(), absl::StatusCode::kResourceExhausted);
  table.Close(1);
  table.Close(1);
  EXPECT_EQ(pool_->n_free(), 2);
  EXPECT_TRUE(table.Open(Spec(3, 1), 1).ok());
}

TEST_F(SequenceTableTest, FreesEverythingWhenTheLaneEnds) {
  {
    SequenceTable table(&cache_);
    ASSERT_TRUE(table.Open(Spec(1, 64), 1).ok());
    EXPECT_EQ(pool_->n_free(), 0);
  }
  EXPECT_EQ(pool_->n_free(), 4);
}

TEST_F(SequenceTableTest, TellsThatAnUnknownSequenceMustBeComputedAgain) {
  SequenceTable table(&cache_);
  EXPECT_EQ(table.Find(9).status().code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(table.Open(Spec(9, 1), 1).ok());
  EXPECT_TRUE(table.Find(9).ok());
  EXPECT_EQ(table.Open(Spec(9, 1), 1).status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(SequenceTableTest, TakesBlocksAsItGrowsAndKeepsThemWhenThereAreNoMore) {
  SequenceTable table(&cache_);
  SequenceSpec spec = Spec(1, 64);
  spec.n_reserved = 17;
  ASSERT_TRUE(table.Open(spec, 1).ok());
  EXPECT_EQ(pool_->n_free(), 2);
  CachedSequence* sequence = *table.Find(1);
  EXPECT_TRUE(table.Grow(sequence, 32).ok());
  EXPECT_EQ(pool_->n_free(), 2);
  EXPECT_TRUE(table.Grow(sequence, 33).ok());
  EXPECT_EQ(pool_->n_free(), 1);
  ASSERT_TRUE(table.Open(Spec(2, 1), 1).ok());
  EXPECT_EQ(table.Grow(sequence, 64).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sequence->blocks.size(), 3u);
  table.Close(2);
  EXPECT_TRUE(table.Grow(sequence, 64).ok());
}

TEST_F(SequenceTableTest, RefusesWhatAllBlocksTogetherCannotHold) {
  SequenceTable table(&cache_);
  SequenceSpec spec = Spec(1, 65);
  spec.n_reserved = 1;
  EXPECT_EQ(table.Open(spec, 1).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pool_->n_free(), 4);
}

// A cache of a model with three layers, and a sequence of 40 tokens on its way through them.
class SharingTest : public testing::Test {
 protected:
  SharingTest() {
    SequenceSpec spec = Spec(1, 40);
    EXPECT_TRUE(table_.Open(spec, 1).ok());
    for (int i = 0; i < 40; ++i) tokens_.push_back(i);
    (*table_.Find(1))->tokens = tokens_;
  }
  void LayerDone(int layer, int first, int n) {
    table_.LayerDone(*table_.Find(1), {1, first, n}, layer);
  }
  void AllLayersDone(int first, int n) {
    for (int layer = 0; layer < 3; ++layer) LayerDone(layer, first, n);
  }
  // Positions that another sequence with the same tokens need not compute.
  int Shared(int max_cached = 39) {
    SequenceSpec spec = Spec(2, 40);
    spec.tokens = tokens_;
    spec.max_cached = max_cached;
    const absl::StatusOr<int> n_cached = table_.Open(spec, 1);
    EXPECT_TRUE(n_cached.ok()) << n_cached.status();
    EXPECT_EQ(static_cast<int>((*table_.Find(2))->tokens.size()), *n_cached);
    EXPECT_EQ((*table_.Find(2))->blocks.size(), 3u);
    table_.Close(2);
    return *n_cached;
  }

  static constexpr KvShape kThreeLayers = {.n_layers = 3,
                                           .layout = {.n_kv_heads = 1, .head_dim = 4}};
  std::unique_ptr<KvBlockPool> pool_ =
      *KvBlockPool::Create(kThreeLayers, kThreeLayers.BlockBytes() * 8);
  PrefixCache cache_{pool_.get()};
  SequenceTable table_{&cache_};
  std::vector<int32_t> tokens_;
};

TEST_F(SharingTest, SharesBlocksOnceTheyAreFullInEveryLayer) {
  LayerDone(0, 0, 20);
  LayerDone(1, 0, 20);
  EXPECT_EQ(Shared(), 0);
  LayerDone(2, 0, 20);
  EXPECT_EQ(Shared(), 16);
  AllLayersDone(20, 12);
  EXPECT_EQ(Shared(), 32);
  AllLayersDone(32, 8);
  EXPECT_EQ(Shared(), 32);  // the third block is not full
}

TEST_F(SharingTest, DoesNotShareWhatSkippedALayerOrPositions) {
  LayerDone(0, 0, 20);
  LayerDone(2, 0, 20);
  EXPECT_EQ(Shared(), 0);
  LayerDone(0, 0, 20);
  LayerDone(1, 0, 16);
  LayerDone(2, 0, 16);
  EXPECT_EQ(Shared(), 0);
  AllLayersDone(5, 35);  // positions 0 to 4 have not been there
  EXPECT_EQ(Shared(), 0);
  AllLayersDone(0, 40);
  EXPECT_EQ(Shared(), 32);
}

TEST_F(SharingTest, TakesNoMoreFromTheCacheThanItsOwnerAllows) {
  AllLayersDone(0, 40);
  EXPECT_EQ(Shared(31), 16);
  EXPECT_EQ(Shared(15), 0);
  EXPECT_EQ(Shared(0), 0);
}

TEST_F(SharingTest, SharedBlocksOutliveTheirSequence) {
  AllLayersDone(0, 40);
  table_.Close(1);
  EXPECT_EQ(cache_.n_cached(), 2);
  EXPECT_EQ(cache_.n_available(), 8);
  EXPECT_EQ(Shared(), 32);
}

TEST_F(SequenceTableTest, RefusesAnEmptySequence) {
  SequenceTable table(&cache_);
  EXPECT_EQ(table.Open(Spec(1, 0), 1).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gatefold

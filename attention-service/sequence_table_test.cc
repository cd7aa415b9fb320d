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
};

TEST_F(SequenceTableTest, ReservesWholeBlocksAndGivesThemBack) {
  SequenceTable table(pool_.get());
  ASSERT_TRUE(table.Open(Spec(1, 17)).ok());
  EXPECT_EQ(pool_->n_free(), 2);
  ASSERT_TRUE(table.Open(Spec(2, 32)).ok());
  EXPECT_EQ(table.Open(Spec(3, 1)).code(), absl::StatusCode::kResourceExhausted);
  table.Close(1);
  table.Close(1);
  EXPECT_EQ(pool_->n_free(), 2);
  EXPECT_TRUE(table.Open(Spec(3, 1)).ok());
}

TEST_F(SequenceTableTest, FreesEverythingWhenTheLaneEnds) {
  {
    SequenceTable table(pool_.get());
    ASSERT_TRUE(table.Open(Spec(1, 64)).ok());
    EXPECT_EQ(pool_->n_free(), 0);
  }
  EXPECT_EQ(pool_->n_free(), 4);
}

TEST_F(SequenceTableTest, TellsThatAnUnknownSequenceMustBeComputedAgain) {
  SequenceTable table(pool_.get());
  EXPECT_EQ(table.Find(9).status().code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(table.Open(Spec(9, 1)).ok());
  EXPECT_TRUE(table.Find(9).ok());
  EXPECT_EQ(table.Open(Spec(9, 1)).code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(SequenceTableTest, RefusesAnEmptySequence) {
  SequenceTable table(pool_.get());
  EXPECT_EQ(table.Open(Spec(1, 0)).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gatefold

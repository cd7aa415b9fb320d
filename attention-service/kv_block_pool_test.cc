#include "attention-service/kv_block_pool.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr KvShape kShape = {.n_layers = 2, .layout = {.n_kv_heads = 2, .head_dim = 4}};

TEST(KvBlockPoolTest, HoldsWhatTheMemoryAllows) {
  auto pool = KvBlockPool::Create(kShape, kShape.BlockBytes() * 3 + 1);
  ASSERT_TRUE(pool.ok());
  EXPECT_EQ((*pool)->n_blocks(), 3);
}

TEST(KvBlockPoolTest, RefusesMemoryForLessThanOneBlock) {
  auto pool = KvBlockPool::Create(kShape, kShape.BlockBytes() - 1);
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(KvBlockPoolTest, RefusesMoreMemoryThanTheMachineHas) {
  auto pool = KvBlockPool::Create(kShape, size_t{1} << 50);
  EXPECT_EQ(pool.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(pool.status().message()), testing::HasSubstr("this machine has"));
}

TEST(KvBlockPoolTest, RefusesWhenNoBlockIsFreeAndTakesNothing) {
  auto pool = KvBlockPool::Create(kShape, kShape.BlockBytes() * 3);
  auto first = (*pool)->Acquire(2);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ((*pool)->Acquire(2).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ((*pool)->n_free(), 1);
  (*pool)->Release(*first);
  EXPECT_EQ((*pool)->Acquire(3)->size(), 3u);
}

TEST(KvBlockPoolTest, BlocksOfLayersDoNotOverlap) {
  auto pool = KvBlockPool::Create(kShape, kShape.BlockBytes() * 3);
  const size_t layer = 3 * kShape.LayerFloats();
  EXPECT_EQ((*pool)->Values(0) - (*pool)->Keys(0), static_cast<ptrdiff_t>(layer));
  EXPECT_EQ((*pool)->Keys(1) - (*pool)->Values(0), static_cast<ptrdiff_t>(layer));
}

}  // namespace
}  // namespace gatefold

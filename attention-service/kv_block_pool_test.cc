#include "attention-service/kv_block_pool.h"

#include "attention-service/kv_storage.h"
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

TEST(KvBlockPoolTest, HoldsTwiceAsManyBlocksOfHalfTheElements) {
  KvShape halves = kShape;
  halves.element_bytes = 2;
  EXPECT_EQ((*KvBlockPool::Create(halves, kShape.BlockBytes() * 3))->n_blocks(), 6);
}

TEST(KvStorageTest, BlocksOfLayersDoNotOverlap) {
  KvStorage storage(kShape, 3);
  const size_t layer = 3 * kShape.LayerElements();
  EXPECT_EQ(storage.Values(0) - storage.Keys(0), static_cast<ptrdiff_t>(layer));
  EXPECT_EQ(storage.Keys(1) - storage.Values(0), static_cast<ptrdiff_t>(layer));
}

}  // namespace
}  // namespace gatefold

#include "gatefold/cuda/attention_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace gatefold::cuda {
namespace {

AttentionShape Shape(int n_heads, int n_kv_heads, int window = 0) {
  return {n_heads, n_kv_heads, 128, window, 0.1f};
}

std::vector<PlanRow> Rows(const std::vector<std::vector<int>>& spans) {  // {sequence, begin, end}
  std::vector<PlanRow> rows;
  for (const auto& span : spans) {
    for (int p = span[1]; p < span[2]; ++p) rows.push_back({p, span[0]});
  }
  return rows;
}

// What must hold of any plan: each row's chunks are worked on once, by items that know its range;
// a row ends in one item or is combined, never both; slots are in bounds and shared by nobody.
void CheckPlan(const AttentionShape& shape, const std::vector<PlanRow>& rows,
               const PlanLimits& limits) {
  const AttentionPlan plan = PlanAttention(shape, rows, limits);
  ASSERT_EQ(plan.items.size(), static_cast<size_t>(plan.n_narrow + plan.n_wide));
  ASSERT_EQ(plan.row_slots.size(), rows.size());
  EXPECT_LE(plan.n_slots, limits.max_slots);
  std::vector<std::map<int, int>> chunks(rows.size());
  std::vector<int> whole(rows.size(), 0);
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const AttentionItem& item = plan.items[i];
    ASSERT_GT(item.n_rows, 0);
    ASSERT_GT(item.n_chunks, 0);
    const int limit = static_cast<int>(i) < plan.n_narrow ? kNarrowTileRows : kWideTileRows;
    EXPECT_LE(item.n_rows * shape.group(), limit);
    for (int r = item.first_row; r < item.first_row + item.n_rows; ++r) {
      EXPECT_EQ(rows[r].sequence, item.sequence);
      EXPECT_GE(rows[r].position, item.min_position);
      EXPECT_LE(rows[r].position, item.max_position);
      whole[r] += item.split ? 0 : 1;
      for (int c = item.first_chunk; c < item.first_chunk + item.n_chunks; ++c) ++chunks[r][c];
    }
  }
  std::set<int64_t> slots;
  const std::set<int32_t> combined(plan.combine_rows.begin(), plan.combine_rows.end());
  EXPECT_EQ(combined.size(), plan.combine_rows.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    EXPECT_EQ(whole[r], combined.count(static_cast<int32_t>(r)) ? 0 : 1) << r;
    const int position = rows[r].position;
    const int first = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
    for (int c = first / kChunkTokens; c <= position / kChunkTokens; ++c) {
      EXPECT_EQ(chunks[r][c], 1) << "row " << r << ", chunk " << c;
      if (!combined.count(static_cast<int32_t>(r))) continue;
      const int64_t slot = plan.row_slots[r] + c;
      EXPECT_TRUE(slot >= 0 && slot < plan.n_slots && slots.insert(slot).second) << slot;
    }
  }
}

TEST(AttentionPlanTest, CoversEachRowOnce) {
  const std::vector<std::vector<std::vector<int>>> batches = {
      {{0, 0, 1}},
      {{0, 5000, 5001}, {1, 255, 256}, {2, 256, 257}},
      {{0, 0, 1000}},
      {{3, 4095, 4096}, {1, 700, 733}, {2, 0, 300}, {0, 9, 10}, {0, 300, 301}},
      {{0, 250, 262}}};
  for (const auto& batch : batches) {
    for (const AttentionShape& shape : {Shape(32, 8), Shape(16, 1), Shape(7, 1), Shape(4, 4),
                                        Shape(32, 8, 600), Shape(7, 1, 1)}) {
      for (const PlanLimits& limits : {PlanLimits{}, PlanLimits{1, 1 << 16}, PlanLimits{100000, 50},
                                       PlanLimits{100000, 1 << 16}, PlanLimits{132, 0}}) {
        CheckPlan(shape, Rows(batch), limits);
      }
    }
  }
}

TEST(AttentionPlanTest, SplitsADecodeRowByChunk) {
  const AttentionPlan plan = PlanAttention(Shape(32, 8), Rows({{0, 4095, 4096}, {1, 10, 11}}));
  EXPECT_EQ(plan.n_narrow, 16 + 1);
  EXPECT_EQ(plan.n_slots, 16);
  EXPECT_EQ(plan.combine_rows, std::vector<int32_t>{0});
}

TEST(AttentionPlanTest, KeepsAManyTiledPrefillWhole) {
  const AttentionPlan plan = PlanAttention(Shape(32, 8), Rows({{0, 0, 4096}}));
  EXPECT_EQ(plan.n_wide, 256);
  EXPECT_EQ(plan.n_slots, 0);
  // The longest tile starts first.
  EXPECT_EQ(plan.items[0].max_position, 4095);
}

TEST(AttentionPlanTest, PadsAndPacks) {
  AttentionPlan plan = PlanAttention(Shape(32, 8), Rows({{0, 600, 601}, {1, 0, 64}}));
  EXPECT_FALSE(plan.PadTo({plan.n_narrow, plan.n_wide, 0, plan.n_slots}));
  const AttentionPlan before = plan;
  ASSERT_TRUE(plan.PadTo({10, 20, 5, 100}));
  EXPECT_EQ(plan.n_narrow, 10);
  EXPECT_EQ(plan.items.size(), 30u);
  EXPECT_EQ(plan.items[9].n_rows, 0);
  EXPECT_EQ(plan.items[10].first_row, before.items[before.n_narrow].first_row);
  EXPECT_EQ(plan.combine_rows.back(), -1);
  std::vector<char> bytes(plan.PackedBytes());
  plan.Pack(bytes.data());
  EXPECT_EQ(std::memcmp(bytes.data(), plan.items.data(), 30 * sizeof(AttentionItem)), 0);
  EXPECT_EQ(bytes.size(), 30 * 32 + (65 + 5) * 4u);
}

TEST(AttentionPlanTest, SaysWhatIsServed) {
  EXPECT_TRUE(Shape(32, 8).IsServed());
  EXPECT_FALSE(Shape(32, 0).IsServed());
  EXPECT_FALSE(Shape(17, 1).IsServed());
  EXPECT_FALSE(Shape(9, 2).IsServed());
  EXPECT_FALSE((AttentionShape{8, 2, 96, 0, 0.1f}).IsServed());
}

}  // namespace
}  // namespace gatefold::cuda

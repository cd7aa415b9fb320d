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

// What must hold of any plan: each (row, KV head) has its chunks worked on once, by segments that
// know its range, each of which some worker comes to; segments of one tile and head count in one
// counter, which is theirs alone, and agree on where the first ends; slots of split rows are in
// bounds and shared by nobody.
void CheckPlan(const AttentionShape& shape, const std::vector<PlanRow>& rows,
               const PlanLimits& limits) {
  const AttentionPlan plan = PlanAttention(shape, rows, limits);
  ASSERT_EQ(plan.row_slots.size(), rows.size());
  EXPECT_LE(plan.n_slots, limits.max_slots);
  std::map<int, int> first_new;  // by sequence
  for (const PlanRow& row : rows) {
    const auto [at, is_first] = first_new.insert({row.sequence, row.position});
    at->second = std::min(at->second, row.position);
  }
  std::map<std::pair<int, int>, std::map<int, int>> chunks;  // by row and head
  std::map<int, std::vector<AttentionSegment>> split;        // by counter
  std::set<int> split_rows;
  size_t n_visited = 0;
  for (int worker = 0; worker < plan.n_narrow + plan.n_wide; ++worker) {
    for (int index = worker; index >= 0; index = plan.segments[index].next) {
      ASSERT_LT(index, static_cast<int>(plan.segments.size()));
      ASSERT_LE(++n_visited, plan.segments.size());
      const AttentionSegment& s = plan.segments[index];
      ASSERT_GT(s.n_rows, 0);
      ASSERT_GT(s.n_chunks, 0);
      const int pairs = s.n_rows * shape.group();
      EXPECT_LE(pairs, worker < plan.n_narrow ? plan.narrow_pairs : WideTilePairs(limits.kernels));
      for (int r = s.first_row; r < s.first_row + s.n_rows; ++r) {
        EXPECT_EQ(rows[r].sequence, s.sequence);
        EXPECT_GE(rows[r].position, s.min_position);
        EXPECT_LE(rows[r].position, s.max_position);
        EXPECT_EQ(s.first_new, first_new.at(s.sequence));
        for (int c = s.first_chunk; c < s.first_chunk + s.n_chunks; ++c)
          ++chunks[{r, s.kv_head}][c];
        if (s.n_segments > 1) split_rows.insert(r);
      }
      if (s.n_segments > 1) split[s.counter].push_back(s);
    }
  }
  for (auto& [counter, segments] : split) {
    EXPECT_TRUE(counter >= 0 && counter < plan.n_counters);
    std::sort(segments.begin(), segments.end(),
              [](const auto& a, const auto& b) { return a.first_chunk < b.first_chunk; });
    for (const AttentionSegment& s : segments) {
      EXPECT_EQ(s.n_segments, static_cast<int>(segments.size()));
      EXPECT_EQ(s.first_row, segments[0].first_row);
      EXPECT_EQ(s.kv_head, segments[0].kv_head);
      EXPECT_EQ(s.prefix_end, segments[0].first_chunk + segments[0].n_chunks);
    }
  }
  std::set<int64_t> slots;
  for (int r = 0; r < static_cast<int>(rows.size()); ++r) {
    const int position = rows[r].position;
    const int first = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
    for (int c = first / kChunkTokens; c <= position / kChunkTokens; ++c) {
      for (int h = 0; h < shape.n_kv_heads; ++h) {
        const auto& counts = chunks[{r, h}];
        EXPECT_TRUE(counts.count(c) == 1 && counts.at(c) == 1) << "row " << r << ", chunk " << c;
      }
      if (split_rows.count(r) == 0) continue;
      const int64_t slot = plan.row_slots[r] + c;
      EXPECT_TRUE(slot >= 0 && slot < plan.n_slots && slots.insert(slot).second) << slot;
    }
  }
}

TEST(AttentionPlanTest, CoversEachRowOnce) {
  const std::vector<std::vector<std::vector<int>>> batches = {
      {{0, 0, 1}},     {{0, 5000, 5001}, {1, 511, 512}, {2, 512, 513}},
      {{0, 0, 1000}},  {{3, 4095, 4096}, {1, 700, 733}, {2, 0, 300}, {0, 9, 10}, {0, 300, 301}},
      {{0, 506, 518}}, {{0, 5000, 5003}, {1, 30000, 30001}, {2, 7000, 7040}}};
  for (const auto& batch : batches) {
    for (const AttentionShape& shape : {Shape(32, 8), Shape(16, 1), Shape(7, 1), Shape(4, 4),
                                        Shape(32, 8, 600), Shape(7, 1, 1)}) {
      for (const AttentionKernels kernels : {AttentionKernels::kAny, AttentionKernels::kHopper}) {
        for (const PlanLimits& limits :
             {PlanLimits{132, 1 << 16, kernels}, PlanLimits{1, 1 << 16, kernels},
              PlanLimits{3, 1 << 16, kernels}, PlanLimits{100000, 50, kernels},
              PlanLimits{100000, 1 << 16, kernels}, PlanLimits{132, 0, kernels}}) {
          CheckPlan(shape, Rows(batch), limits);
        }
      }
    }
  }
}

TEST(AttentionPlanTest, GivesEachWorkerAsManyChunks) {
  // 16 chunks of 8 heads, then one of each.
  const AttentionPlan plan =
      PlanAttention(Shape(32, 8), Rows({{0, 8191, 8192}, {1, 10, 11}}),
                    {.n_multiprocessors = 17, .kernels = AttentionKernels::kHopper});
  EXPECT_EQ(plan.n_narrow, 34);
  EXPECT_EQ(plan.n_slots, 16);
  for (int worker = 0; worker < plan.n_narrow; ++worker) {
    int n = 0;
    for (int i = worker; i >= 0; i = plan.segments[i].next) n += plan.segments[i].n_chunks;
    EXPECT_EQ(n, 4) << worker;
  }
  // As many heads as workers: nothing is split.
  EXPECT_EQ(PlanAttention(Shape(32, 8), Rows({{0, 4095, 4096}}),
                          {.n_multiprocessors = 4, .kernels = AttentionKernels::kHopper})
                .n_slots,
            0);
}

TEST(AttentionPlanTest, KeepsAManyTiledPrefillWhole) {
  const AttentionPlan plan = PlanAttention(Shape(32, 8), Rows({{0, 0, 4096}}));
  EXPECT_EQ(plan.n_wide, 264);
  EXPECT_EQ(plan.segments.size(), 256u * 8);
  EXPECT_EQ(plan.n_slots, 0);
  // The longest tiles start first.
  EXPECT_EQ(plan.segments[0].max_position, 4095);
  // One tile of each head: the context is split.
  EXPECT_GT(PlanAttention(Shape(32, 8), Rows({{0, 4000, 4016}})).n_slots, 0);
}

TEST(AttentionPlanTest, CutsWideTilesToTheNumberOfWorkers) {
  const auto most_rows = [](const std::vector<std::vector<int>>& spans) {
    const AttentionPlan plan =
        PlanAttention(Shape(32, 8), Rows(spans), {.kernels = AttentionKernels::kHopper});
    int most = 0;
    for (const AttentionSegment& segment : plan.segments) most = std::max<int>(most, segment.n_rows);
    return most;
  };
  EXPECT_EQ(most_rows({{0, 0, 4096}}), 48);
  EXPECT_EQ(most_rows({{0, 8192, 8704}}), 32);  // 16 tiles of 8 heads for 132 workers
}

TEST(AttentionPlanTest, Packs) {
  const AttentionPlan plan =
      PlanAttention(Shape(32, 8), Rows({{0, 1200, 1201}, {1, 0, 64}}), {.n_multiprocessors = 4});
  EXPECT_GT(plan.n_counters, 0);
  std::vector<char> bytes(plan.PackedBytes(), 1);
  plan.Pack(bytes.data());
  const size_t segments = plan.segments.size() * sizeof(AttentionSegment);
  EXPECT_EQ(std::memcmp(bytes.data(), plan.segments.data(), segments), 0);
  EXPECT_EQ(std::memcmp(bytes.data() + segments, plan.row_slots.data(), 65 * 4), 0);
  ASSERT_EQ(bytes.size(), segments + (65 + plan.n_counters) * 4u);
  EXPECT_EQ(std::count(bytes.end() - plan.n_counters * 4, bytes.end(), 0), plan.n_counters * 4);
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

#include "router-service/gateway/routing_trace.h"

#include <cstring>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

// One layer, one expert per token: expert 256 + position, weight position, shard position % 3.
TraceChunk Chunk(int first, int n) {
  TraceChunk chunk;
  chunk.first_position = first;
  chunk.n_tokens = n;
  chunk.layers = {4};
  chunk.top_k = 1;
  for (int p = first; p < first + n; ++p) {
    chunk.experts.push_back(256 + p);
    chunk.weights.push_back(static_cast<float>(p));
    chunk.served_by.push_back(p % 3);
  }
  return chunk;
}

const std::vector<std::string> kNames = {"s0", "s1", "s2"};

void ExpectPositions(const inference::v1::RoutingTrace& trace, int first, int n) {
  ASSERT_EQ(trace.first_position(), first);
  ASSERT_EQ(trace.n_tokens(), n);
  ASSERT_EQ(trace.expert_ids().size(), 2 * n);
  ASSERT_EQ(trace.gate_weights().size(), 4 * n);
  ASSERT_EQ(trace.shards().size(), n);
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(static_cast<uint8_t>(trace.expert_ids()[2 * i]), first + i);
    EXPECT_EQ(trace.expert_ids()[2 * i + 1], 1);
    float weight;
    std::memcpy(&weight, trace.gate_weights().data() + 4 * i, 4);
    EXPECT_EQ(weight, first + i);
    EXPECT_EQ(trace.shard_names(trace.shards()[i]), kNames[(first + i) % 3]);
  }
}

TEST(RoutingTraceTest, JoinsChunksThatFollowEachOther) {
  inference::v1::RoutingTrace trace;
  EXPECT_TRUE(AppendTrace(Chunk(0, 3), 0, 100, kNames, &trace));
  EXPECT_TRUE(AppendTrace(Chunk(3, 2), 0, 100, kNames, &trace));
  ExpectPositions(trace, 0, 5);
}

TEST(RoutingTraceTest, TakesOnlyTheAskedPositions) {
  inference::v1::RoutingTrace trace;
  EXPECT_TRUE(AppendTrace(Chunk(0, 10), 4, 7, kNames, &trace));
  ExpectPositions(trace, 4, 3);
  EXPECT_TRUE(AppendTrace(Chunk(20, 2), 4, 7, kNames, &trace));  // none of them
  ExpectPositions(trace, 4, 3);
}

TEST(RoutingTraceTest, RefusesGapsAndOtherShapes) {
  inference::v1::RoutingTrace trace;
  EXPECT_TRUE(AppendTrace(Chunk(0, 2), 0, 100, kNames, &trace));
  EXPECT_FALSE(AppendTrace(Chunk(3, 2), 0, 100, kNames, &trace));
  EXPECT_FALSE(AppendTrace(Chunk(1, 2), 0, 100, kNames, &trace));
  TraceChunk other = Chunk(2, 1);
  other.layers = {5};
  EXPECT_FALSE(AppendTrace(other, 0, 100, kNames, &trace));
  ExpectPositions(trace, 0, 2);
}

TEST(RoutingTraceTest, ListsOnlyTheShardsItNeeds) {
  inference::v1::RoutingTrace trace;
  EXPECT_TRUE(AppendTrace(Chunk(2, 1), 0, 100, kNames, &trace));
  ASSERT_EQ(trace.shard_names_size(), 1);
  EXPECT_EQ(trace.shard_names(0), "s2");
}

TEST(RoutingTraceTest, JoinsTracesWithShardListsOfTheirOwn) {
  inference::v1::RoutingTrace whole, part;
  EXPECT_TRUE(AppendTrace(Chunk(1, 1), 0, 100, kNames, &whole));
  EXPECT_TRUE(AppendTrace(Chunk(2, 3), 0, 100, kNames, &part));
  EXPECT_TRUE(AppendTrace(part, &whole));
  ExpectPositions(whole, 1, 4);
  EXPECT_FALSE(AppendTrace(part, &whole));
}

}  // namespace
}  // namespace gatefold

#include "router-service/gateway/routing_record.h"

#include "gtest/gtest.h"

namespace gatefold {
namespace {

// One layer, one expert per token: the expert's id is the position.
TraceChunk Positions(int first, int n) {
  TraceChunk chunk;
  chunk.first_position = first;
  chunk.n_tokens = n;
  chunk.layers = {0};
  chunk.top_k = 1;
  for (int i = 0; i < n; ++i) {
    chunk.experts.push_back(static_cast<uint16_t>(first + i));
    chunk.weights.push_back(1);
    chunk.served_by.push_back(0);
  }
  return chunk;
}

cluster::v1::GenerationTrace TraceOf(RoutingRecord* record, int n_candidates) {
  cluster::v1::GenerationTrace trace;
  for (int i = 0; i < n_candidates; ++i) trace.add_candidates();
  record->MoveTo(&trace);
  return trace;
}

TEST(RoutingRecordTest, KeepsThePromptOnceAndEveryCandidate) {
  RoutingRecord record(1 << 20);
  for (int candidate : {1, 0}) {
    record.Add(candidate, Positions(0, 4), 4, 3, {"a"});
    record.Add(candidate, Positions(4, 1), 4, 3, {"a"});
  }
  const auto trace = TraceOf(&record, 2);
  EXPECT_FALSE(trace.routing_dropped());
  EXPECT_EQ(trace.prompt_routing().n_tokens(), 4);
  for (const auto& candidate : trace.candidates()) {
    EXPECT_EQ(candidate.routing().first_position(), 3);
    EXPECT_EQ(candidate.routing().n_tokens(), 2);
    EXPECT_EQ(candidate.routing().shard_names(0), "a");
  }
}

TEST(RoutingRecordTest, ForgetsAllOfThemPastItsBytes) {
  RoutingRecord record(70);  // ten entries
  record.Add(0, Positions(0, 10), 10, 9, {"a"});
  record.Add(0, Positions(10, 1), 10, 9, {"a"});
  record.Add(0, Positions(11, 1), 10, 9, {"a"});
  const auto trace = TraceOf(&record, 1);
  EXPECT_TRUE(trace.routing_dropped());
  EXPECT_FALSE(trace.has_prompt_routing());
  EXPECT_FALSE(trace.candidates(0).has_routing());
}

TEST(RoutingRecordTest, SaysNothingWhereNothingWasAsked) {
  RoutingRecord record(70);
  const auto trace = TraceOf(&record, 1);
  EXPECT_FALSE(trace.routing_dropped());
  EXPECT_FALSE(trace.has_prompt_routing());
}

}  // namespace
}  // namespace gatefold

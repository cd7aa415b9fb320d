#include "router-service/gateway/event_buffer.h"

#include "gtest/gtest.h"

namespace gatefold {
namespace {

using Event = EventBuffer::Event;
using Taken = EventBuffer::Taken;

Event Delta(int candidate, const std::string& text) {
  Event event;
  event.mutable_delta()->set_candidate_index(candidate);
  event.mutable_delta()->set_n_tokens(1);
  event.mutable_delta()->set_text(text);
  event.mutable_delta()->add_token_ids(text.size());
  return event;
}

Event Traced(int candidate, int position) {
  Event event = Delta(candidate, "");
  auto* trace = event.mutable_delta()->mutable_routing_trace();
  trace->set_first_position(position);
  trace->set_n_tokens(1);
  trace->set_top_k(1);
  trace->add_layer_ids(0);
  trace->set_expert_ids(std::string("\1\0", 2));
  trace->set_shards(std::string(1, '\0'));
  trace->add_shard_names(std::string("s"));
  return event;
}

// What is there now; "end" for the end.
std::vector<std::string> Drain(EventBuffer* buffer) {
  std::vector<std::string> out;
  while (true) {
    Event event;
    absl::Status status;
    switch (buffer->Take(&event, &status)) {
      case Taken::kNothingYet:
        return out;
      case Taken::kEnd:
        out.push_back("end");
        return out;
      case Taken::kEvent:
        out.push_back(event.has_delta() ? std::to_string(event.delta().candidate_index()) + ":" +
                                              event.delta().text()
                      : event.has_started() ? "started"
                                            : "other");
    }
  }
}

TEST(EventBufferTest, MergesDeltasOfEachCandidateThatWait) {
  EventBuffer buffer(1000, 1000);
  buffer.Open({});
  EXPECT_TRUE(buffer.Push(Delta(0, "a")));
  EXPECT_TRUE(buffer.Push(Delta(1, "x")));
  EXPECT_TRUE(buffer.Push(Delta(0, "b")));
  EXPECT_TRUE(buffer.Push(Delta(1, "y")));
  Event event;
  absl::Status status;
  EXPECT_EQ(buffer.Take(&event, &status), Taken::kEvent);  // started
  EXPECT_EQ(buffer.Take(&event, &status), Taken::kEvent);
  EXPECT_EQ(event.delta().text(), "ab");
  EXPECT_EQ(event.delta().n_tokens(), 2);
  EXPECT_EQ(event.delta().token_ids_size(), 2);
  EXPECT_TRUE(buffer.Push(Delta(0, "c")));  // the one it belonged to is gone
  EXPECT_TRUE(buffer.Push(Delta(1, "z")));
  EXPECT_EQ(Drain(&buffer), (std::vector<std::string>{"1:xyz", "0:c"}));
}

TEST(EventBufferTest, KeepsTheTextThatIsLeftAtTheEndApartFromTokens) {
  EventBuffer buffer(1000, 1000);
  buffer.Open({});
  EXPECT_TRUE(buffer.Push(Delta(0, "ab")));
  Event rest = Delta(0, "c");
  rest.mutable_delta()->set_n_tokens(0);
  rest.mutable_delta()->clear_token_ids();
  EXPECT_TRUE(buffer.Push(rest));
  EXPECT_EQ(Drain(&buffer), (std::vector<std::string>{"other", "0:ab", "0:c"}));
}

TEST(EventBufferTest, StartsANewDeltaAtTheSizeLimit) {
  EventBuffer buffer(60, 10000);
  buffer.Open({});
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(buffer.Push(Delta(0, "0123456789")));
  const std::vector<std::string> events = Drain(&buffer);
  EXPECT_GT(events.size(), 2 + 1);
  EXPECT_LT(events.size(), 2 + 5);
  for (const std::string& event : events) EXPECT_LE(event.size(), 60);
}

TEST(EventBufferTest, RefusesDeltasBeyondItsBoundUntilSomeWereTaken) {
  for (const int max_delta_bytes : {1, 10000}) {  // merging or not
    EventBuffer buffer(max_delta_bytes, 200);
    buffer.Open({});
    int n_taken = 0;
    while (buffer.Push(Delta(0, "0123456789"))) ASSERT_LT(++n_taken, 20);
    EXPECT_GE(n_taken, 200 / 30);
    Drain(&buffer);
    EXPECT_TRUE(buffer.Push(Delta(0, "0123456789")));
  }
}

TEST(EventBufferTest, CountsTheTextAndNotTheFramingOfMergedDeltas) {
  EventBuffer buffer(10000, 1000);
  buffer.Open({});
  int n_taken = 0;
  Event event;
  event.mutable_delta()->set_n_tokens(1);
  event.mutable_delta()->set_text("x");
  while (n_taken < 900 && buffer.Push(event)) ++n_taken;
  EXPECT_EQ(n_taken, 900);
}

TEST(EventBufferTest, GivesNothingBeforeItIsOpened) {
  EventBuffer buffer(1000, 1000);
  EXPECT_TRUE(buffer.Push(Delta(1, "early")));
  EXPECT_TRUE(Drain(&buffer).empty());
  EXPECT_FALSE(buffer.ClaimWake());
  Event started;
  started.mutable_started();
  buffer.Open(started);
  EXPECT_TRUE(buffer.ClaimWake());
  EXPECT_FALSE(buffer.ClaimWake());
  EXPECT_EQ(Drain(&buffer), (std::vector<std::string>{"started", "1:early"}));
}

TEST(EventBufferTest, EndsAfterTheEventsAndOnlyOnce) {
  EventBuffer buffer(1000, 1000);
  buffer.Open({});
  EXPECT_TRUE(buffer.Push(Delta(0, "a")));
  buffer.End(absl::UnavailableError("first"));
  buffer.End(absl::OkStatus());
  EXPECT_EQ(Drain(&buffer), (std::vector<std::string>{"other", "0:a", "end"}));
  EXPECT_EQ(buffer.end(), absl::UnavailableError("first"));
}

TEST(EventBufferTest, WakesOnlyAReaderThatWaits) {
  EventBuffer buffer(1000, 1000);
  buffer.Open({});
  EXPECT_FALSE(buffer.ClaimWake());
  Drain(&buffer);
  EXPECT_FALSE(buffer.ClaimWake());
  buffer.End(absl::OkStatus());
  EXPECT_TRUE(buffer.ClaimWake());
}

TEST(EventBufferTest, KeepsDeltasApartWhereTheirTracesDoNotFollow) {
  EventBuffer buffer(1000, 1000);
  buffer.Open({});
  EXPECT_TRUE(buffer.Push(Traced(0, 5)));
  EXPECT_TRUE(buffer.Push(Traced(0, 6)));
  EXPECT_TRUE(buffer.Push(Traced(0, 9)));
  Event event;
  absl::Status status;
  buffer.Take(&event, &status);
  buffer.Take(&event, &status);
  EXPECT_EQ(event.delta().routing_trace().n_tokens(), 2);
  EXPECT_EQ(event.delta().routing_trace().expert_ids().size(), 4);
  buffer.Take(&event, &status);
  EXPECT_EQ(event.delta().routing_trace().first_position(), 9);
}

}  // namespace
}  // namespace gatefold

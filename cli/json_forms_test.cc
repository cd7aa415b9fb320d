#include "cli/json_forms.h"

#include <gtest/gtest.h>

#include <cstring>
#include <sstream>

namespace gatefold::cli {
namespace {

template <typename T>
std::string Packed(std::initializer_list<T> values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  std::memcpy(bytes.data(), values.begin(), bytes.size());
  return bytes;
}

// Two tokens; layer 1 alone has a gate.
inference::v1::RoutingTrace MakeTrace() {
  inference::v1::RoutingTrace trace;
  trace.set_n_tokens(2);
  trace.add_layer_ids(1);
  trace.set_top_k(2);
  trace.set_expert_ids(Packed<uint16_t>({3, 0, 258, 1}));
  trace.set_gate_weights(Packed<float>({0.75, 0.25, 0.5, 0.5}));
  trace.set_shards(Packed<uint8_t>({0, 1, 1, 1}));
  trace.add_shard_names("left");
  trace.add_shard_names("right");
  return trace;
}

std::string Line(const Json& json) {
  std::ostringstream out;
  PrintJson(json, out);
  return out.str();
}

TEST(JsonFormsTest, WritesTextThatIsNotUtf8) {
  EXPECT_EQ(Line(TextJson("a\xFF")), "{\"text\":\"a\xEF\xBF\xBD\"}\n");
}

TEST(JsonFormsTest, WritesEmptyLists) {
  EXPECT_EQ(Line(TokenIdsJson({})), "{\"token_ids\":[]}\n");
  EXPECT_EQ(Line(*ScoreJson({})), "{\"argmax\":[],\"logprobs\":[]}\n");
  Answer answer;
  answer.summary.set_degraded_tokens(3);
  EXPECT_EQ(GenerateJson(answer)["degraded_tokens"], 3);
  inference::v1::ScoreTextResponse degraded;
  degraded.set_degraded_tokens(2);
  EXPECT_EQ(Line(*ScoreJson(degraded)), "{\"argmax\":[],\"logprobs\":[],\"degraded_tokens\":2}\n");
  EXPECT_FALSE(GenerateJson(answer).contains("mixed_numerics"));
  answer.summary.set_mixed_numerics(true);
  EXPECT_EQ(GenerateJson(answer)["mixed_numerics"], true);
}

TEST(JsonFormsTest, RefusesAScoreOfOtherLength) {
  inference::v1::ScoreTextResponse response;
  response.add_tokens();
  EXPECT_EQ(ScoreJson(response).status().code(), absl::StatusCode::kInternal);
}

TEST(JsonFormsTest, WritesRoutingByLayerAndToken) {
  const auto routing = RoutingJson(MakeTrace(), 3, 2);
  ASSERT_TRUE(routing.ok()) << routing.status();
  EXPECT_EQ(Line(*routing),
            "[null,[{\"experts\":[3,0],\"weights\":[0.75,0.25]},"
            "{\"experts\":[258,1],\"weights\":[0.5,0.5]}],null]\n");
}

TEST(JsonFormsTest, WritesNullsForADenseModel) {
  EXPECT_EQ(Line(*RoutingJson({}, 2, 5)), "[null,null]\n");
}

TEST(JsonFormsTest, RefusesATraceThatDoesNotFit) {
  EXPECT_FALSE(RoutingJson(MakeTrace(), 1, 2).ok());  // layer 1 of 1
  EXPECT_FALSE(RoutingJson(MakeTrace(), 3, 4).ok());  // 2 tokens of 4
  inference::v1::RoutingTrace trace = MakeTrace();
  trace.mutable_gate_weights()->pop_back();
  EXPECT_FALSE(RoutingJson(trace, 3, 2).ok());
  trace = MakeTrace();
  trace.mutable_shards()->back() = 2;
  EXPECT_FALSE(RoutingJson(trace, 3, 2).ok());
  trace = MakeTrace();
  trace.set_n_tokens(4294967295u);
  EXPECT_FALSE(RoutingJson(trace, 3, 2).ok());
}

TEST(JsonFormsTest, SharesAddUp) {
  RoutingShares shares;
  ASSERT_TRUE(shares.Add(MakeTrace()).ok());
  ASSERT_TRUE(shares.Add(MakeTrace()).ok());
  EXPECT_EQ(shares.total, 8u);
  EXPECT_EQ(shares.ShardShare("right"), 75);
  EXPECT_EQ(shares.ExpertShare(1, 258), 25);
  const Json json = RoutingSharesJson(shares);
  EXPECT_EQ(json["shards"][0]["rows"], 2);
  EXPECT_EQ(json["experts"].size(), 4);
}

TEST(JsonFormsTest, WritesLogprobsWithAlternatives) {
  inference::v1::TokenLogprobs token;
  token.set_token_id(5);
  token.set_token("x");
  token.set_logprob(-1);
  token.add_top()->set_token_id(6);
  EXPECT_EQ(Line(LogprobsJson({token})),
            "[{\"token_id\":5,\"token\":\"x\",\"logprob\":-1.0,"
            "\"top\":[{\"token_id\":6,\"token\":\"\",\"logprob\":0.0}]}]\n");
}

}  // namespace
}  // namespace gatefold::cli

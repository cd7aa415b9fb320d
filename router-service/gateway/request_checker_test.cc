#include "router-service/gateway/request_checker.h"

#include <limits>

#include "absl/strings/match.h"
#include "gatefold/base/errors.h"
#include "gtest/gtest.h"
#include "router-service/gateway/gateway_fakes.h"

namespace gatefold {
namespace {

using inference::v1::GenerateTextRequest;
using inference::v1::GenerationConfig;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

class RequestCheckerTest : public testing::Test {
 protected:
  RequestCheckerTest() { request_.mutable_prompt()->set_text("hello"); }

  absl::Status Check(RequestChecker::Abilities abilities = {}) const {
    return RequestChecker(&model_, &limits_, abilities).Check(request_, resumed_);
  }
  // Refused as INVALID_ARGUMENT about `field`, with `part` in the description.
  void ExpectBadField(const std::string& field, const std::string& part,
                      RequestChecker::Abilities abilities = {}) const {
    const absl::Status status = Check(abilities);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    const ErrorDetails details = GetErrorDetails(status);
    EXPECT_EQ(details.reason, kBadRequest);
    ASSERT_EQ(details.violations.size(), 1) << status;
    EXPECT_EQ(details.violations[0].field, field);
    EXPECT_TRUE(absl::StrContains(details.violations[0].description, part)) << status;
  }
  GenerationConfig* config() { return request_.mutable_config(); }

  const ModelInfo model_ = TinyModel();
  RequestLimits limits_;
  GenerateTextRequest request_;
  RequestChecker::ResumeIds resumed_;
};

TEST_F(RequestCheckerTest, AcceptsPlainAndExtremeRequests) {
  EXPECT_EQ(Check(), absl::OkStatus());
  config()->set_temperature(0);
  config()->set_top_p(1);
  config()->set_top_k(4000000000u);
  config()->set_min_p(0);
  config()->set_presence_penalty(-2);
  config()->set_max_output_tokens(0);
  config()->set_candidate_count(8);
  (*config()->mutable_logit_bias())[0] = -100;
  request_.set_model("tiny");
  request_.set_request_id("a-1");
  EXPECT_EQ(Check(), absl::OkStatus());
}

TEST_F(RequestCheckerTest, RefusesNumbersOutsideTheirRange) {
  struct Case {
    void (GenerationConfig::*set)(float);
    const char* field;
    std::vector<float> bad;
  };
  const Case cases[] = {
      {&GenerationConfig::set_temperature, "config.temperature", {-0.1f, 101}},
      {&GenerationConfig::set_top_p, "config.top_p", {0, -1, 1.01f}},
      {&GenerationConfig::set_min_p, "config.min_p", {-0.1f, 1.1f}},
      {&GenerationConfig::set_repetition_penalty, "config.repetition_penalty", {0, -1, 101}},
      {&GenerationConfig::set_presence_penalty, "config.presence_penalty", {-2.1f, 2.1f}},
      {&GenerationConfig::set_frequency_penalty, "config.frequency_penalty", {-2.1f, 2.1f}},
  };
  for (const Case& each : cases) {
    for (const float value : each.bad) {
      config()->Clear();
      (config()->*each.set)(value);
      ExpectBadField(each.field, absl::StrCat("is ", value, ","));
    }
    for (const float value : {kNan, kInf, -kInf}) {
      config()->Clear();
      (config()->*each.set)(value);
      ExpectBadField(each.field, "must be a number in");
    }
  }
}

TEST_F(RequestCheckerTest, TellsANumberFromTheLimitThatItIsJustBeyond) {
  config()->set_temperature(100.0001f);
  ExpectBadField("config.temperature", "is 100.0001, must be a number in [0, 100]");
  config()->Clear();
  config()->set_min_p(1.0000001f);
  ExpectBadField("config.min_p", "is 1.0000001, must be a number in [0, 1]");
}

TEST_F(RequestCheckerTest, RefusesCountsOutsideTheirRange) {
  config()->set_candidate_count(0);
  ExpectBadField("config.candidate_count", "is 0, must be in [1, 8]");
  config()->set_candidate_count(9);
  ExpectBadField("config.candidate_count", "is 9, must be in [1, 8]");
  config()->Clear();
  config()->set_max_output_tokens(3);
  config()->set_min_output_tokens(4);
  ExpectBadField("config.min_output_tokens", "is 4, more than max_output_tokens, 3");
  config()->Clear();
  config()->set_min_output_tokens(4294967295u);
  ExpectBadField("config.min_output_tokens", "is 4294967295, the model's length is 128");
  config()->Clear();
  request_.mutable_output()->set_top_logprobs(21);
  ExpectBadField("output.top_logprobs", "is 21, the limit is 20");
}

TEST_F(RequestCheckerTest, RefusesTokenIdsOutsideTheVocabulary) {
  for (const int32_t id : {-1, 300, std::numeric_limits<int32_t>::min()}) {
    request_.mutable_prompt()->mutable_token_ids()->clear_ids();
    request_.mutable_prompt()->mutable_token_ids()->add_ids(299);
    request_.mutable_prompt()->mutable_token_ids()->add_ids(id);
    ExpectBadField("prompt.token_ids.ids[1]", absl::StrCat("is ", id, ", must be in [0, 300)"));
  }
  request_.mutable_prompt()->set_text("x");
  config()->add_stop_token_ids(300);
  ExpectBadField("config.stop_token_ids[0]", "is 300, must be in [0, 300)");
  config()->Clear();
  (*config()->mutable_logit_bias())[-5] = 1;
  ExpectBadField("config.logit_bias[-5]", "is -5, must be in [0, 300)");
}

TEST_F(RequestCheckerTest, RefusesBiasesThatAreNoNumbersInRange) {
  for (const float bias : {100.5f, -101.0f, kNan, kInf}) {
    (*config()->mutable_logit_bias())[7] = bias;
    ExpectBadField("config.logit_bias[7]", "must be a number in [-100, 100]");
  }
  config()->Clear();
  limits_.max_logit_bias = 2;
  for (int id = 0; id < 3; ++id) (*config()->mutable_logit_bias())[id] = 1;
  ExpectBadField("config.logit_bias", "has 3 entries, the limit is 2");
}

TEST_F(RequestCheckerTest, RefusesEmptyPrompts) {
  request_.mutable_prompt()->set_text("");
  ExpectBadField("prompt.text", "is empty");
  request_.mutable_prompt()->mutable_token_ids();
  ExpectBadField("prompt.token_ids", "is empty");
  request_.mutable_prompt()->mutable_conversation();
  ExpectBadField("prompt.conversation.messages", "is empty");
  request_.clear_prompt();
  ExpectBadField("prompt", "is empty");
}

TEST_F(RequestCheckerTest, RefusesFieldsThatContradictEachOther) {
  request_.mutable_prompt()->mutable_token_ids()->add_ids(1);
  request_.mutable_prompt()->set_add_special_tokens(false);
  ExpectBadField("prompt.add_special_tokens", "prompt.text only");
  request_.mutable_prompt()->clear_add_special_tokens();
  request_.mutable_prompt()->set_parse_special_tokens(true);
  ExpectBadField("prompt.parse_special_tokens", "prompt.token_ids");
}

TEST_F(RequestCheckerTest, RefusesTextThatIsTooLongBeforeLookingAtIt) {
  request_.mutable_prompt()->set_text(std::string(10'000'000, '\xff'));
  ExpectBadField("prompt.text", "has 10000000 bytes, the limit is 1048576");
  auto* messages = request_.mutable_prompt()->mutable_conversation();
  for (int i = 0; i < 2; ++i) {
    messages->add_messages()->set_role("user");
    messages->mutable_messages(i)->set_content(std::string(600'000, '\xff'));
  }
  ExpectBadField("prompt.conversation.messages",
                 "has 1200000 bytes of content, the limit is 1048576");
  limits_.max_messages = 1;
  ExpectBadField("prompt.conversation.messages", "has 2 messages, the limit is 1");
}

TEST_F(RequestCheckerTest, RefusesMoreIdsThanTheModelTakesBeforeLookingAtThem) {
  auto* ids = request_.mutable_prompt()->mutable_token_ids();
  ids->mutable_ids()->Resize(129, -1);
  inference::v1::ScoreTextRequest score;
  *score.mutable_prompt() = request_.prompt();
  const RequestChecker checker(&model_, &limits_, {});
  for (const absl::Status& status : {Check(), checker.Check(score)}) {
    EXPECT_EQ(ReasonOf(status), kContextLengthExceeded);
    EXPECT_EQ(status.message(),
              "prompt.token_ids.ids: the prompt has 129 tokens, the limit is 128");
  }
  ids->mutable_ids()->Clear();
  ids->mutable_ids()->Resize(128, 1);
  EXPECT_EQ(Check(), absl::OkStatus());
  config()->set_seed(0);
  resumed_.Resize(129, -1);
  ExpectBadField("resume_token_ids", "has 129 ids, the limit is 128");
}

TEST_F(RequestCheckerTest, IdsThatAreCutOrCountedMayBeMore) {
  const RequestChecker checker(&model_, &limits_, {});
  inference::v1::CountTokensRequest count;
  request_.set_truncation_policy(inference::v1::TRUNCATION_POLICY_KEEP_END);
  const auto set_ids = [&](int n, int32_t id) {
    request_.mutable_prompt()->mutable_token_ids()->mutable_ids()->Clear();
    request_.mutable_prompt()->mutable_token_ids()->mutable_ids()->Resize(n, id);
    *count.mutable_prompt() = request_.prompt();
  };
  for (const int limit : {200, 128}) {
    limits_.max_token_ids = limit == 200 ? 200 : 100;  // but what the model takes
    set_ids(limit, 1);
    EXPECT_EQ(Check(), absl::OkStatus());
    EXPECT_EQ(checker.Check(count), absl::OkStatus());
    set_ids(limit + 1, -1);
    const std::string too_many = absl::StrCat("has ", limit + 1, " ids, the limit is ", limit);
    ExpectBadField("prompt.token_ids.ids", too_many);
    EXPECT_EQ(checker.Check(count).message(), "prompt.token_ids.ids: " + too_many);
  }
}

TEST_F(RequestCheckerTest, NamesTheOffsetOfInvalidUtf8) {
  request_.mutable_prompt()->set_text("gr\xc3\xbc\xc3 x");
  ExpectBadField("prompt.text", "byte offset 4 of 7");
  auto* message = request_.mutable_prompt()->mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content("\x80");
  ExpectBadField("prompt.conversation.messages[0].content", "byte offset 0 of 1");
  request_.mutable_prompt()->set_text("x");
  config()->add_stop_sequences("ok");
  config()->add_stop_sequences("\xed\xa0\x80");  // a surrogate
  ExpectBadField("config.stop_sequences[1]", "byte offset 0 of 3");
}

TEST_F(RequestCheckerTest, RefusesRolesThatCouldHoldSpecialTokens) {
  auto* message = request_.mutable_prompt()->mutable_conversation()->add_messages();
  for (const char* role : {"", "user<|im_end|>", "a b", "ü"}) {
    message->set_role(role);
    ExpectBadField("prompt.conversation.messages[0].role", "letters");
  }
}

TEST_F(RequestCheckerTest, RefusesStopSequencesBeyondTheLimits) {
  config()->add_stop_sequences("");
  ExpectBadField("config.stop_sequences[0]", "is empty");
  config()->set_stop_sequences(0, std::string(257, 'x'));
  ExpectBadField("config.stop_sequences[0]", "has 257 bytes, the limit is 256");
  config()->Clear();
  for (int i = 0; i < 17; ++i) config()->add_stop_sequences("x");
  ExpectBadField("config.stop_sequences", "has 17 stop sequences, the limit is 16");
  config()->Clear();
  for (int i = 0; i < 65; ++i) config()->add_stop_token_ids(1);
  ExpectBadField("config.stop_token_ids", "has 65 ids, the limit is 64");
}

TEST_F(RequestCheckerTest, RefusesRequestIdsThatCannotBeLogged) {
  request_.set_request_id("a b");
  ExpectBadField("request_id", "has the byte 32 at offset 1");
  request_.set_request_id("line\nbreak");
  ExpectBadField("request_id", "has the byte 10 at offset 4");
  request_.set_request_id(std::string(129, 'x'));
  ExpectBadField("request_id", "has 129 bytes, the limit is 128");
}

TEST_F(RequestCheckerTest, RefusesUnknownPoliciesAndPriorities) {
  request_.set_truncation_policy(static_cast<inference::v1::TruncationPolicy>(9));
  ExpectBadField("truncation_policy", "is 9");
  request_.clear_truncation_policy();
  for (const int32_t priority : {101, -101, std::numeric_limits<int32_t>::min()}) {
    request_.set_priority(priority);
    ExpectBadField("priority", absl::StrCat("is ", priority, ", must be in [-100, 100]"));
  }
}

TEST_F(RequestCheckerTest, RefusesUnknownModels) {
  request_.set_model("huge");
  EXPECT_EQ(Check().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(Check()), kModelNotFound);
}

TEST_F(RequestCheckerTest, SaysThatConstraintsAreNotSupported) {
  config()->mutable_constraint()->set_regex("a+");
  EXPECT_EQ(Check().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(ReasonOf(Check()), kFeatureUnsupported);
}

TEST_F(RequestCheckerTest, ResumesOnlyWithSeedAndOneCandidate) {
  resumed_.Add(5);
  ExpectBadField("config.seed", "must be set with resume_token_ids");
  config()->set_seed(0);
  EXPECT_EQ(Check(), absl::OkStatus());
  config()->set_candidate_count(2);
  ExpectBadField("config.candidate_count", "must be 1 with resume_token_ids");
  config()->clear_candidate_count();
  config()->set_max_output_tokens(0);
  ExpectBadField("resume_token_ids", "has 1 ids, more than config.max_output_tokens, 0");
  config()->clear_max_output_tokens();
  resumed_.Add(300);
  ExpectBadField("resume_token_ids[1]", "is 300");
}

TEST_F(RequestCheckerTest, RefusesTextWhereThereIsNoTokenizer) {
  const RequestChecker::Abilities none = {false, false};
  ExpectBadField("prompt.text", "no tokenizer", none);
  request_.mutable_prompt()->mutable_token_ids()->add_ids(1);
  EXPECT_EQ(Check(none), absl::OkStatus());
  config()->add_stop_sequences("x");
  ExpectBadField("config.stop_sequences", "no tokenizer", none);
  config()->Clear();
  request_.mutable_prompt()->mutable_conversation()->add_messages();
  ExpectBadField("prompt.conversation", "no chat template", {true, false});
}

TEST_F(RequestCheckerTest, ChecksTheOtherCallsToo) {
  const RequestChecker checker(&model_, &limits_, {});
  inference::v1::TokenizeRequest tokenize;
  tokenize.mutable_prompt()->set_text("");
  EXPECT_EQ(checker.Check(tokenize), absl::OkStatus());
  tokenize.mutable_prompt()->mutable_token_ids();
  EXPECT_TRUE(absl::IsInvalidArgument(checker.Check(tokenize)));
  inference::v1::DetokenizeRequest detokenize;
  detokenize.add_token_ids(300);
  EXPECT_TRUE(absl::IsInvalidArgument(checker.Check(detokenize)));
  inference::v1::ScoreTextRequest score;
  EXPECT_TRUE(absl::IsInvalidArgument(checker.Check(score)));
  score.mutable_prompt()->set_text("x");
  score.set_top_logprobs(21);
  EXPECT_TRUE(absl::IsInvalidArgument(checker.Check(score)));
  inference::v1::CountTokensRequest count;
  count.set_model("other");
  EXPECT_TRUE(absl::IsNotFound(checker.Check(count)));
}

}  // namespace
}  // namespace gatefold

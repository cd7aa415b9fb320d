#include "router-service/gateway/gateway.h"

#include <cstring>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "gatefold/base/errors.h"
#include "gtest/gtest.h"
#include "router-service/gateway/gateway_fakes.h"

namespace gatefold {
namespace {

using Submission = FakeGenerationService::Submission;

// An answer to wait for.
template <typename Response>
class Answer {
 public:
  std::function<void(absl::StatusOr<Response>)> Done() {
    return [this](absl::StatusOr<Response> response) {
      response_ = std::move(response);
      there_.Notify();
    };
  }
  const absl::StatusOr<Response>& Await() {
    there_.WaitForNotification();
    return response_;
  }
  bool there() const { return there_.HasBeenNotified(); }

 private:
  absl::StatusOr<Response> response_;
  absl::Notification there_;
};

class GatewayTest : public testing::Test {
 protected:
  GatewayTest() { Restart(); }
  void Restart() {
    Gateway::Dependencies deps;
    deps.codec = codec_;
    deps.service = &service_;
    deps.cluster = &cluster_;
    deps.observer = &observer_;
    gateway_ = *Gateway::Create(options_, TinyModel(), deps);
  }
  absl::StatusOr<inference::v1::CountTokensResponse> Count(const inference::v1::Prompt& prompt) {
    inference::v1::CountTokensRequest request;
    *request.mutable_prompt() = prompt;
    Answer<inference::v1::CountTokensResponse> answer;
    gateway_->CountTokens(request, answer.Done());
    return answer.Await();
  }

  std::shared_ptr<FakeCodec> codec_ = std::make_shared<FakeCodec>();
  FakeGenerationService service_;
  FakeCluster cluster_;
  FakeObserver observer_;
  GatewayOptions options_;
  std::unique_ptr<Gateway> gateway_;
};

TEST_F(GatewayTest, FoldsAStreamIntoOneAnswer) {
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");
  request.mutable_config()->set_candidate_count(2);
  request.mutable_config()->add_stop_sequences("ED");
  request.mutable_output()->set_token_ids(true);
  Answer<inference::v1::GenerateTextResponse> answer;
  auto call = gateway_->GenerateWhole(request, absl::InfiniteFuture(), answer.Done());
  service_.Await(1).Say("second");
  service_.Await(0).Say("first");
  service_.Await(1).Say("ED");
  EXPECT_FALSE(answer.there());
  service_.Await(0).Stop();
  const auto& response = answer.Await();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->request_id().size(), 32);
  EXPECT_EQ(response->prompt().token_ids_size(), 3);
  ASSERT_EQ(response->candidates_size(), 2);
  EXPECT_EQ(response->candidates(0).text(), "first");
  EXPECT_EQ(response->candidates(0).finish_reason(), inference::v1::FINISH_REASON_STOP);
  EXPECT_EQ(response->candidates(0).stop_token_id(), FakeCodec::kEos);
  EXPECT_EQ(response->candidates(1).index(), 1);
  EXPECT_EQ(response->candidates(1).text(), "second");
  EXPECT_EQ(response->candidates(1).matched_stop(), "ED");
  EXPECT_EQ(response->candidates(1).token_ids_size(), 8);
  EXPECT_EQ(response->summary().usage().output_tokens(), 13);
}

// With as many tokens and no more, for it is always the same minute.
std::shared_ptr<Caller> MakeCaller(int64_t tokens_per_minute) {
  ApiKey key;
  key.name = "alice";
  key.tokens_per_minute = tokens_per_minute;
  return std::make_shared<Caller>(key, [] { return absl::UnixEpoch(); });
}

TEST_F(GatewayTest, HoldsACallersTokensAndGivesBackWhatWasNotUsed) {
  const auto alice = MakeCaller(100);
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");  // 3 tokens
  request.mutable_config()->set_candidate_count(2);
  request.mutable_config()->set_max_output_tokens(20);
  Answer<inference::v1::GenerateTextResponse> first, second, third;
  const auto ask = [&](auto* answer) {
    return gateway_->GenerateWhole(request, absl::InfiniteFuture(), answer->Done(), alice);
  };
  const auto call1 = ask(&first);  // 3 + 2 * 20
  service_.Await(1);
  const auto call2 = ask(&second);
  service_.Await(3);
  const auto call3 = ask(&third);
  EXPECT_EQ(ReasonOf(third.Await().status()), "RATE_LIMITED");
  EXPECT_EQ(service_.n_submitted(), 4);  // before the scheduler hears of it
  for (const int i : {0, 1}) {
    service_.Await(i).Say("four");
    service_.Await(i).Stop();
  }
  EXPECT_TRUE(first.Await().ok());
  EXPECT_TRUE(alice->TakeTokens(100 - 43 - (3 + 8)).ok());
  EXPECT_FALSE(alice->TakeTokens(1).ok());
}

TEST_F(GatewayTest, RefusesAHigherPriorityThanTheCallersKeyMayAskFor) {
  ApiKey key;
  key.name = "batch";
  key.max_priority = 0;
  const auto batch = std::make_shared<Caller>(key, [] { return absl::UnixEpoch(); });
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");
  request.set_priority(1);
  Answer<inference::v1::GenerateTextResponse> refused, taken;
  const auto call1 =
      gateway_->GenerateWhole(request, absl::InfiniteFuture(), refused.Done(), batch);
  const absl::Status status = refused.Await().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "priority: is 1, the limit of this key is 0");
  EXPECT_EQ(service_.n_submitted(), 0);
  request.set_priority(0);
  const auto call2 = gateway_->GenerateWhole(request, absl::InfiniteFuture(), taken.Done(), batch);
  service_.Await(0).Say("four");
  service_.Await(0).Stop();
  EXPECT_TRUE(taken.Await().ok());
}

TEST_F(GatewayTest, GivesARequestWithoutADeadlineOne) {
  options_.max_request_time = absl::Hours(2);
  Restart();
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");
  inference::v1::ScoreTextRequest score;
  score.mutable_prompt()->set_text("hi");
  const absl::Time soon = absl::Now() + absl::Minutes(1);
  Answer<inference::v1::GenerateTextResponse> first, second;
  Answer<inference::v1::ScoreTextResponse> third;
  const auto call1 = gateway_->GenerateWhole(request, absl::InfiniteFuture(), first.Done());
  EXPECT_LE(service_.Await(0).request.deadline, absl::Now() + absl::Hours(2));
  const auto call2 = gateway_->GenerateWhole(request, soon, second.Done());
  EXPECT_EQ(service_.Await(1).request.deadline, soon);
  const auto call3 = gateway_->Score(score, absl::InfiniteFuture(), third.Done());
  EXPECT_LE(service_.Await(2).request.deadline, absl::Now() + absl::Hours(2));
}

TEST_F(GatewayTest, HoldsNoMoreThanTheModelsLengthLeaves) {
  const auto alice = MakeCaller(1000);
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");  // 3 tokens of 64
  request.mutable_config()->set_candidate_count(2);
  request.mutable_config()->set_max_output_tokens(1'000'000);
  Answer<inference::v1::GenerateTextResponse> answer;
  const auto call = gateway_->GenerateWhole(request, absl::InfiniteFuture(), answer.Done(), alice);
  service_.Await(1);
  constexpr int kHeld = 3 + 2 * 61;
  EXPECT_TRUE(alice->TakeTokens(1000 - kHeld).ok());
  EXPECT_FALSE(alice->TakeTokens(1).ok());
  for (const int i : {0, 1}) {
    service_.Await(i).Say("four");
    service_.Await(i).Stop();
  }
  EXPECT_TRUE(answer.Await().ok());
  EXPECT_TRUE(alice->TakeTokens(kHeld - (3 + 8)).ok());
  EXPECT_FALSE(alice->TakeTokens(1).ok());
}

TEST_F(GatewayTest, WhatIsResumedIsNotHeldAgain) {
  inference::v1::StreamGenerateTextRequest request;
  request.mutable_request()->mutable_prompt()->set_text("hi");
  request.mutable_request()->mutable_config()->set_seed(7);
  request.mutable_resume_token_ids()->Resize(20, 'x');
  int index = 0;
  for (const auto& [max_output_tokens, n_output] : {std::pair(50, 30), std::pair(100, 41)}) {
    const auto alice = MakeCaller(1000);
    request.mutable_request()->mutable_config()->set_max_output_tokens(max_output_tokens);
    auto generation = gateway_->Generate(
        request, absl::InfiniteFuture(), [] {}, alice);
    Submission& submission = service_.Await(index++);
    EXPECT_TRUE(alice->TakeTokens(1000 - 3 - n_output).ok());
    EXPECT_FALSE(alice->TakeTokens(1).ok());
    // All that there may be: nothing is left to give back.
    submission.Say(std::string(n_output, 'y'));
    submission.End(StopCause::kContextLength);
    EXPECT_FALSE(alice->TakeTokens(1).ok());
  }
}

// The scheduler may be done before it is known to have begun.
TEST_F(GatewayTest, APromptCountsHoweverSoonItsGenerationEnds) {
  const auto alice = MakeCaller(100);
  service_.end_in_submit = true;
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");  // 3 tokens
  Answer<inference::v1::GenerateTextResponse> answer;
  const auto call = gateway_->GenerateWhole(request, absl::InfiniteFuture(), answer.Done(), alice);
  EXPECT_TRUE(answer.Await().ok());
  EXPECT_TRUE(alice->TakeTokens(97).ok());
  EXPECT_FALSE(alice->TakeTokens(1).ok());
}

TEST_F(GatewayTest, AScoreCountsItsPromptAndARefusedRequestNothing) {
  const auto alice = MakeCaller(10);
  service_.refuse_after = 0;
  service_.refusal = QueueFull(absl::Seconds(1));
  inference::v1::GenerateTextRequest generate;
  generate.mutable_prompt()->set_text("hi");
  generate.mutable_config()->set_max_output_tokens(7);
  Answer<inference::v1::GenerateTextResponse> refused;
  const auto call =
      gateway_->GenerateWhole(generate, absl::InfiniteFuture(), refused.Done(), alice);
  EXPECT_EQ(ReasonOf(refused.Await().status()), "QUEUE_FULL");
  service_.refuse_after = -1;
  inference::v1::ScoreTextRequest score;
  score.mutable_prompt()->set_text("hello");  // 6 tokens
  Answer<inference::v1::ScoreTextResponse> first, second;
  const auto call1 = gateway_->Score(score, absl::InfiniteFuture(), first.Done(), alice);
  service_.Await(0);
  const auto call2 = gateway_->Score(score, absl::InfiniteFuture(), second.Done(), alice);
  EXPECT_EQ(ReasonOf(second.Await().status()), "RATE_LIMITED");
  EXPECT_TRUE(alice->TakeTokens(4).ok());
}

TEST_F(GatewayTest, AFailureLeavesNoHalfAnswer) {
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");
  Answer<inference::v1::GenerateTextResponse> answer;
  auto call = gateway_->GenerateWhole(request, absl::InfiniteFuture(), answer.Done());
  service_.Await(0).Say("partial");
  service_.Await(0).End(StopCause::kError, absl::UnavailableError("x"));
  EXPECT_EQ(answer.Await().status(), absl::UnavailableError("x"));
}

TEST_F(GatewayTest, RefusesAnAnswerThatGrowsTooLarge) {
  options_.limits.max_response_bytes = 200;
  Restart();
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");
  Answer<inference::v1::GenerateTextResponse> answer;
  auto call = gateway_->GenerateWhole(request, absl::InfiniteFuture(), answer.Done());
  service_.Await(0).Say(std::string(100, 'x'));
  EXPECT_TRUE(absl::StrContains(answer.Await().status().message(), "more than 200 bytes"));
  service_.AwaitRelease(0);
}

TEST_F(GatewayTest, DroppingACallFreesTheSchedulerAndIsNotAnswered) {
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text("hi");
  inference::v1::ScoreTextRequest score;
  score.mutable_prompt()->set_text("hi");
  Answer<inference::v1::GenerateTextResponse> answer;
  Answer<inference::v1::ScoreTextResponse> score_answer;
  auto call = gateway_->GenerateWhole(request, absl::InfiniteFuture(), answer.Done());
  service_.Await(0);
  auto score_call = gateway_->Score(score, absl::InfiniteFuture(), score_answer.Done());
  service_.Await(1).Begin();
  call.reset();
  score_call.reset();
  service_.AwaitRelease(0);
  service_.AwaitRelease(1);
  service_.Await(0).Stop();
  service_.Await(1).End(StopCause::kCancelled, absl::CancelledError(""));
  EXPECT_FALSE(answer.there());
  EXPECT_FALSE(score_answer.there());
  EXPECT_EQ(gateway_->n_live_requests(), 0);
  absl::MutexLock lock(&observer_.mu);
  ASSERT_EQ(observer_.reports.size(), 2u);
  EXPECT_EQ(observer_.reports[0].queue, absl::InfiniteDuration());  // it came to no step
  EXPECT_NE(observer_.reports[1].queue, absl::InfiniteDuration());
}

std::vector<Sampled> Scores(const std::vector<int32_t>& targets) {
  std::vector<Sampled> scores;
  for (const int32_t target : targets) {
    Sampled& score = scores.emplace_back();
    score.token = target;
    score.logprob = -static_cast<float>(target) / 8;
    score.argmax = target + 1000;
  }
  return scores;
}

TEST_F(GatewayTest, ScoresEveryPositionAndKeepsTheLastLogits) {
  inference::v1::ScoreTextRequest request;
  for (const int id : {1, 5, 9}) request.mutable_prompt()->mutable_token_ids()->add_ids(id);
  request.set_last_logits(true);
  request.set_top_logprobs(3);
  request.set_request_id("s1");
  Answer<inference::v1::ScoreTextResponse> answer;
  auto call = gateway_->Score(request, absl::InfiniteFuture(), answer.Done());
  Submission& submission = service_.Await(0);
  EXPECT_EQ(submission.request.max_output_tokens, 0);
  EXPECT_TRUE(submission.request.score_prompt);
  EXPECT_TRUE(submission.request.want_last_logits);
  EXPECT_EQ(submission.request.n_prompt_top_logprobs, 3);
  submission.listener->OnPromptScores(0, Scores({5, 9}));
  std::vector<Sampled> last = Scores({-1});
  last[0].logits = {0.5f, -2.0f};
  submission.listener->OnPromptScores(2, last);
  submission.End(StopCause::kPromptDone);
  const auto& response = answer.Await();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->request_id(), "s1");
  ASSERT_EQ(response->tokens_size(), 3);
  EXPECT_FALSE(response->tokens(0).has_logprob());
  EXPECT_EQ(response->tokens(0).token_id(), 1);
  EXPECT_EQ(response->tokens(1).logprob(), -5.0f / 8);
  EXPECT_EQ(response->tokens(2).logprob(), -9.0f / 8);
  EXPECT_EQ(std::vector<int32_t>(response->argmax().begin(), response->argmax().end()),
            (std::vector<int32_t>{1005, 1009, 999}));
  float logits[2];
  ASSERT_EQ(response->last_logits().size(), sizeof(logits));
  std::memcpy(logits, response->last_logits().data(), sizeof(logits));
  EXPECT_EQ(logits[1], -2.0f);
  EXPECT_EQ(response->usage().prompt_tokens(), 3);
}

TEST_F(GatewayTest, AScoreSaysThatNumericsWereMixedThoughTheyAreNotAtItsEnd) {
  inference::v1::ScoreTextRequest request;
  for (const int id : {1, 5}) request.mutable_prompt()->mutable_token_ids()->add_ids(id);
  Answer<inference::v1::ScoreTextResponse> mixed, later;
  cluster_.mixed = true;
  auto call = gateway_->Score(request, absl::InfiniteFuture(), mixed.Done());
  service_.Await(0).listener->OnPromptScores(0, Scores({5}));
  cluster_.mixed = false;
  service_.Await(0).listener->OnPromptScores(1, Scores({-1}));
  service_.Await(0).End(StopCause::kPromptDone);
  EXPECT_TRUE(mixed.Await()->mixed_numerics());
  auto call2 = gateway_->Score(request, absl::InfiniteFuture(), later.Done());
  service_.Await(1).listener->OnPromptScores(0, Scores({5, -1}));
  service_.Await(1).End(StopCause::kPromptDone);
  EXPECT_FALSE(later.Await()->mixed_numerics());
  absl::MutexLock lock(&observer_.mu);
  EXPECT_TRUE(observer_.reports.at(0).mixed_numerics);
  EXPECT_FALSE(observer_.reports.at(1).mixed_numerics);
}

TEST_F(GatewayTest, TheSchedulerKnowsAScoreByTheIdThatTheCallerIsTold) {
  inference::v1::ScoreTextRequest request;
  request.mutable_prompt()->mutable_token_ids()->add_ids(1);
  Answer<inference::v1::ScoreTextResponse> answer;
  auto call = gateway_->Score(request, absl::InfiniteFuture(), answer.Done());
  Submission& submission = service_.Await(0);
  const std::string known = submission.request.request_id;
  EXPECT_EQ(known.size(), 32);
  submission.listener->OnPromptScores(0, Scores({-1}));
  submission.End(StopCause::kPromptDone);
  EXPECT_EQ(answer.Await()->request_id(), known);
}

TEST_F(GatewayTest, AnUnscoredPositionIsAnError) {
  inference::v1::ScoreTextRequest request;
  for (const int id : {1, 5, 9}) request.mutable_prompt()->mutable_token_ids()->add_ids(id);
  Answer<inference::v1::ScoreTextResponse> answer;
  auto call = gateway_->Score(request, absl::InfiniteFuture(), answer.Done());
  service_.Await(0).listener->OnPromptScores(0, Scores({5}));
  service_.Await(0).listener->OnPromptScores(2, Scores({-1, -1}));
  service_.Await(0).End(StopCause::kPromptDone);
  EXPECT_EQ(answer.Await().status().code(), absl::StatusCode::kInternal);
}

TEST_F(GatewayTest, RefusesToScoreMoreThanFits) {
  inference::v1::ScoreTextRequest request;
  for (int i = 0; i < 65; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(1);
  Answer<inference::v1::ScoreTextResponse> answer;
  auto call = gateway_->Score(request, absl::InfiniteFuture(), answer.Done());
  EXPECT_EQ(ReasonOf(answer.Await().status()), kContextLengthExceeded);
}

TEST_F(GatewayTest, RefusesTooManyIdsBeforeTheyWait) {
  options_.limits.max_token_ids = 100;
  options_.n_preparation_threads = 1;
  Restart();
  codec_->Close();
  inference::v1::CountTokensRequest request;
  request.mutable_prompt()->set_text("x");
  Answer<inference::v1::CountTokensResponse> first, second;
  gateway_->CountTokens(request, first.Done());
  codec_->AwaitEncoding(1);  // the one thread there is
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Resize(101, 1);
  gateway_->CountTokens(request, second.Done());
  EXPECT_TRUE(second.there());
  codec_->Open();
  EXPECT_EQ(second.Await().status().message(),
            "prompt.token_ids.ids: has 101 ids, the limit is 100");
  EXPECT_TRUE(first.Await().ok());
}

TEST_F(GatewayTest, CountsTextIdsAndConversations) {
  inference::v1::Prompt prompt;
  prompt.set_text("abc");
  EXPECT_EQ(Count(prompt)->n_tokens(), 4);
  prompt.set_add_special_tokens(false);
  EXPECT_EQ(Count(prompt)->n_tokens(), 3);
  prompt.Clear();
  prompt.mutable_token_ids()->add_ids(1);
  EXPECT_EQ(Count(prompt)->n_tokens(), 1);
  auto* message = prompt.mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content("hey");
  EXPECT_EQ(Count(prompt)->n_tokens(), 5);
}

TEST_F(GatewayTest, ContentsOfAConversationDoNotBecomeSpecialTokensByThemselves) {
  inference::v1::Prompt prompt;
  auto* message = prompt.mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content("<eos>");
  EXPECT_EQ(Count(prompt)->n_tokens(), 1 + 5 + 1);
  prompt.set_parse_special_tokens(true);
  EXPECT_EQ(Count(prompt)->n_tokens(), 1 + 1 + 1);
}

TEST_F(GatewayTest, WhatTheTemplateRefusesNamesTheConversation) {
  inference::v1::Prompt prompt;
  auto* message = prompt.mutable_conversation()->add_messages();
  message->set_role("tool");
  const ErrorDetails details = GetErrorDetails(Count(prompt).status());
  ASSERT_EQ(details.violations.size(), 1);
  EXPECT_EQ(details.violations[0].field, "prompt.conversation");
}

TEST_F(GatewayTest, TokenizesAndDetokenizes) {
  inference::v1::TokenizeRequest request;
  request.mutable_prompt()->set_text("é<eos>");
  Answer<inference::v1::TokenizeResponse> answer;
  gateway_->Tokenize(request, answer.Done());
  const auto& tokens = answer.Await();
  ASSERT_TRUE(tokens.ok());
  ASSERT_EQ(tokens->token_ids_size(), 4);
  EXPECT_EQ(tokens->tokens(1), "\xc3");
  inference::v1::DetokenizeRequest back;
  *back.mutable_token_ids() = tokens->token_ids();
  for (const bool skip : {false, true}) {
    back.set_skip_special_tokens(skip);
    Answer<inference::v1::DetokenizeResponse> text;
    gateway_->Detokenize(back, text.Done());
    EXPECT_EQ(text.Await()->text(), skip ? "é" : "é<eos>");
  }
}

TEST_F(GatewayTest, SaysWhatItServes) {
  EXPECT_EQ(gateway_->model().max_sequence_tokens, 64);  // the scheduler allows fewer
  EXPECT_TRUE(gateway_->model().has_chat_template);
  EXPECT_TRUE(absl::IsNotFound(gateway_->CheckModel("other")));
  EXPECT_TRUE(gateway_->CheckModel("").ok());
}

TEST_F(GatewayTest, RefusesOptionsThatMakeNoSense) {
  options_.max_preparing = 0;
  Gateway::Dependencies deps;
  deps.service = &service_;
  deps.cluster = &cluster_;
  EXPECT_TRUE(absl::IsInvalidArgument(Gateway::Create(options_, TinyModel(), deps).status()));
}

}  // namespace
}  // namespace gatefold

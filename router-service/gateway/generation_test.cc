#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/synchronization/notification.h"
#include "gatefold/base/errors.h"
#include "gtest/gtest.h"
#include "router-service/gateway/gateway.h"
#include "router-service/gateway/gateway_fakes.h"
#include "router-service/gateway/random_bits.h"

namespace gatefold {
namespace {

using inference::v1::StreamGenerateTextRequest;
using inference::v1::StreamGenerateTextResponse;
using Submission = FakeGenerationService::Submission;

// Everything a stream said.
struct Said {
  std::vector<StreamGenerateTextResponse> events;
  absl::Status status = absl::UnknownError("the stream has not ended");

  const StreamGenerateTextResponse::Started& started() const { return events.at(0).started(); }
  std::string text(uint32_t candidate = 0) const {
    std::string joined;
    for (const auto& event : events) {
      if (event.has_delta() && event.delta().candidate_index() == candidate) {
        joined += event.delta().text();
      }
    }
    return joined;
  }
  const StreamGenerateTextResponse::Finish& finish(uint32_t candidate = 0) const {
    for (const auto& event : events) {
      if (event.has_finish() && event.finish().candidate_index() == candidate) {
        return event.finish();
      }
    }
    return StreamGenerateTextResponse::Finish::default_instance();
  }
  const inference::v1::Summary& summary() const { return events.back().summary(); }
};

// A reader that may wait for the wake-up.
class Reader {
 public:
  std::function<void()> Wake() {
    return [this] {
      absl::MutexLock lock(&mu_);
      ++n_wakes_;
    };
  }
  void Start(std::unique_ptr<Generation> generation) { generation_ = std::move(generation); }

  // Takes what is there.
  bool Drain() {
    while (true) {
      StreamGenerateTextResponse event;
      absl::Status status;
      switch (generation_->Take(&event, &status)) {
        case Generation::Taken::kNothingYet:
          return false;
        case Generation::Taken::kEnd:
          said.status = status;
          return true;
        case Generation::Taken::kEvent:
          said.events.push_back(std::move(event));
      }
    }
  }
  // Takes everything up to the end.
  Said& ToEnd() {
    while (!Drain()) {
      absl::MutexLock lock(&mu_, absl::Condition(
                                     +[](Reader* self) { return self->n_wakes_ > 0; }, this));
      --n_wakes_;
    }
    return said;
  }
  void Leave() { generation_.reset(); }

  Said said;

 private:
  absl::Mutex mu_;
  int n_wakes_ = 0;
  std::unique_ptr<Generation> generation_;
};

class GenerationTest : public testing::Test {
 protected:
  GenerationTest() {
    request_.mutable_request()->mutable_prompt()->set_text("hi");
    Restart();
  }
  void Restart() {
    Gateway::Dependencies deps;
    deps.codec = codec_;
    deps.service = &service_;
    deps.cluster = &cluster_;
    deps.observer = &observer_;
    deps.clock = [this] { return now_; };
    gateway_ = *Gateway::Create(options_, TinyModel(), deps);
  }
  void Start(Reader* reader) {
    reader->Start(gateway_->Generate(request_, deadline_, reader->Wake()));
  }
  Submission& StartAndAwait(int index = 0) {
    Start(&reader_);
    return service_.Await(index);
  }
  inference::v1::GenerationConfig* config() { return request_.mutable_request()->mutable_config(); }
  inference::v1::OutputOptions* output() { return request_.mutable_request()->mutable_output(); }
  RequestReport Report() {
    absl::MutexLock lock(&observer_.mu);
    EXPECT_EQ(observer_.reports.size(), 1);
    return observer_.reports.at(0);
  }

  const std::shared_ptr<FakeCodec> codec_ = std::make_shared<FakeCodec>();
  FakeGenerationService service_;
  FakeCluster cluster_;
  FakeObserver observer_;
  GatewayOptions options_;
  absl::Time now_ = absl::UnixEpoch();
  absl::Time deadline_ = absl::InfiniteFuture();
  StreamGenerateTextRequest request_;
  std::unique_ptr<Gateway> gateway_;
  Reader reader_;
};

TraceChunk Trace(int first, int n) {
  TraceChunk chunk;
  chunk.first_position = first;
  chunk.n_tokens = n;
  chunk.layers = {0, 1};
  chunk.top_k = 2;
  chunk.experts.assign(4 * n, 3);
  chunk.weights.assign(4 * n, 0.5f);
  chunk.served_by.assign(4 * n, 1);
  return chunk;
}

TEST_F(GenerationTest, TellsStartTextFinishAndSummary) {
  config()->set_seed(5);
  request_.mutable_request()->set_request_id("r1");
  Submission& submission = StartAndAwait();
  EXPECT_EQ(submission.request.prompt, (std::vector<int32_t>{FakeCodec::kBos, 'h', 'i'}));
  submission.Begin(2);
  submission.Say("grün");
  submission.Stop();
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.status, absl::OkStatus());
  EXPECT_EQ(said.started().request_id(), "r1");
  EXPECT_EQ(said.started().prompt().n_tokens(), 3);
  EXPECT_EQ(said.started().seed(), 5);
  EXPECT_EQ(said.text(), "grün");
  EXPECT_EQ(said.finish().reason(), inference::v1::FINISH_REASON_STOP);
  EXPECT_EQ(said.finish().stop_token_id(), FakeCodec::kEos);
  const auto& summary = said.summary();
  EXPECT_EQ(summary.usage().prompt_tokens(), 3);
  EXPECT_EQ(summary.usage().cached_tokens(), 2);
  EXPECT_EQ(summary.usage().output_tokens(), 5);
  EXPECT_EQ(summary.effective_config().seed(), 5);
  EXPECT_EQ(summary.effective_config().max_output_tokens(), 61);
  EXPECT_EQ(summary.topology_version(), 7);
  EXPECT_EQ(summary.model_fingerprint(), "0123abcd");
  EXPECT_FALSE(summary.has_timings());
}

TEST_F(GenerationTest, MapsEveryOrderlyEnd) {
  const std::pair<StopCause, inference::v1::FinishReason> cases[] = {
      {StopCause::kMaxTokens, inference::v1::FINISH_REASON_LENGTH},
      {StopCause::kPromptDone, inference::v1::FINISH_REASON_LENGTH},
      {StopCause::kContextLength, inference::v1::FINISH_REASON_CONTEXT_LENGTH}};
  int index = 0;
  for (const auto& [cause, reason] : cases) {
    Reader reader;
    Start(&reader);
    service_.Await(index++).End(cause);
    EXPECT_EQ(reader.ToEnd().finish().reason(), reason);
    EXPECT_FALSE(reader.said.finish().has_stop_token_id());
  }
}

TEST_F(GenerationTest, EndsAtAStopStringWithoutShowingIt) {
  config()->add_stop_sequences("###");
  Submission& submission = StartAndAwait();
  submission.Say("a#b### never");
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.text(), "a#b");
  EXPECT_EQ(said.finish().reason(), inference::v1::FINISH_REASON_STOP_SEQUENCE);
  EXPECT_EQ(said.finish().matched_stop(), "###");
  EXPECT_EQ(said.summary().usage().output_tokens(), 6);
}

TEST_F(GenerationTest, ShowsAHalfStopStringWhenTheTokensEnd) {
  config()->add_stop_sequences("###");
  Submission& submission = StartAndAwait();
  submission.Say("a##");
  submission.End(StopCause::kMaxTokens);
  EXPECT_EQ(reader_.ToEnd().text(), "a##");
  EXPECT_EQ(reader_.said.finish().reason(), inference::v1::FINISH_REASON_LENGTH);
}

TEST_F(GenerationTest, MergesWhatASlowReaderHasNotTaken) {
  output()->set_token_ids(true);
  Submission& submission = StartAndAwait();
  submission.Say("many tokens");
  reader_.Drain();
  ASSERT_EQ(reader_.said.events.size(), 2);  // started, one delta
  EXPECT_EQ(reader_.said.events[1].delta().n_tokens(), 11);
  EXPECT_EQ(reader_.said.events[1].delta().token_ids_size(), 11);
  submission.Say("!");
  submission.Stop();
  EXPECT_EQ(reader_.ToEnd().text(), "many tokens!");
}

TEST_F(GenerationTest, EndsAStreamThatIsReadTooSlowly) {
  options_.max_unread_bytes = 100;
  Restart();
  Submission& submission = StartAndAwait();
  submission.Say(std::string(150, 'x'));
  EXPECT_EQ(submission.listener, nullptr);  // refused a token
  service_.AwaitRelease(0);
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(absl::StrContains(said.status.message(), "100 bytes"));
  EXPECT_FALSE(said.text().empty());  // what it had
}

TEST_F(GenerationTest, FailureAfterPartialOutputIsNeverOk) {
  const std::pair<absl::Status, absl::StatusCode> cases[] = {
      {ExpertUnavailable(3, 4, absl::Seconds(1)), absl::StatusCode::kUnavailable},
      {absl::InternalError("x"), absl::StatusCode::kInternal},
      {absl::OkStatus(), absl::StatusCode::kInternal},
      {absl::InvalidArgumentError("x"), absl::StatusCode::kInternal},
      {absl::DeadlineExceededError("x"), absl::StatusCode::kDeadlineExceeded}};
  int index = 0;
  for (const auto& [status, code] : cases) {
    Reader reader;
    Start(&reader);
    Submission& submission = service_.Await(index++);
    submission.Say("ab");
    submission.End(StopCause::kError, status);
    EXPECT_EQ(reader.ToEnd().status.code(), code);
    EXPECT_EQ(reader.said.text(), "ab");
    EXPECT_EQ(ReasonOf(reader.said.status), ReasonOf(status));
    for (const auto& event : reader.said.events) {
      EXPECT_FALSE(event.has_finish() || event.has_summary());
    }
  }
}

TEST_F(GenerationTest, ReleasesTheSchedulerWhenTheReaderLeaves) {
  request_.mutable_request()->set_request_id("gone");
  Submission& submission = StartAndAwait();
  submission.Say("ab");
  reader_.Leave();
  service_.AwaitRelease(0);
  EXPECT_FALSE(submission.Token('c'));
  submission.End(StopCause::kCancelled, absl::CancelledError(""));
  EXPECT_EQ(gateway_->n_live_requests(), 0);
  EXPECT_EQ(Report().status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Report().n_output_tokens, 2);
}

TEST_F(GenerationTest, DoesNotSubmitForAReaderThatLeftWhileItTokenised) {
  codec_->Close();
  Start(&reader_);
  codec_->AwaitEncoding(1);
  reader_.Leave();
  codec_->Open();
  gateway_.reset();  // joins the pool
  EXPECT_EQ(service_.n_submitted(), 0);
}

TEST_F(GenerationTest, ReleasesAHandleThatComesAfterTheEnd) {
  service_.end_in_submit = true;
  Start(&reader_);
  EXPECT_EQ(reader_.ToEnd().status, absl::OkStatus());
  service_.AwaitRelease(0);
}

TEST_F(GenerationTest, RefusesASecondLiveRequestOfTheSameId) {
  request_.mutable_request()->set_request_id("twin");
  Submission& submission = StartAndAwait();
  Reader second;
  Start(&second);
  EXPECT_EQ(second.ToEnd().status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(second.said.status), kDuplicateRequest);
  EXPECT_EQ(Report().request_id, "");  // which is the other's
  EXPECT_EQ(Report().refused_id, "twin");
  submission.Say("still alive");
  submission.Stop();
  EXPECT_EQ(reader_.ToEnd().text(), "still alive");
  Reader third;  // its end was told, so the id is free
  Start(&third);
  service_.Await(1).Stop();
  EXPECT_EQ(third.ToEnd().status, absl::OkStatus());
}

TEST_F(GenerationTest, CandidatesHaveSeedsAndDeltasOfTheirOwn) {
  config()->set_seed(11);
  config()->set_candidate_count(3);
  Start(&reader_);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(service_.Await(i).request.sampling.seed, CandidateSeed(11, i));
    EXPECT_EQ(service_.Await(i).request.prompt, service_.Await(0).request.prompt);
  }
  for (const char letter : {'x', 'y'}) {
    for (int i = 0; i < 3; ++i) service_.Await(i).Say(std::string(i + 1, letter));
  }
  for (const int i : {2, 0, 1}) service_.Await(i).Stop();
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.status, absl::OkStatus());
  EXPECT_EQ(said.text(0), "xy");
  EXPECT_EQ(said.text(1), "xxyy");
  EXPECT_EQ(said.text(2), "xxxyyy");
  EXPECT_EQ(said.summary().usage().output_tokens(), 12);
  EXPECT_EQ(said.summary().effective_config().candidate_count(), 3);
}

TEST_F(GenerationTest, OneFailedCandidateFailsAllAndReleasesThem) {
  config()->set_candidate_count(2);
  Start(&reader_);
  service_.Await(1);
  service_.Await(0).Say("a");
  service_.Await(1).End(StopCause::kError, absl::UnavailableError("gone"));
  EXPECT_EQ(reader_.ToEnd().status, absl::UnavailableError("gone"));
  EXPECT_FALSE(service_.Await(0).Token('b'));
  service_.AwaitRelease(0);
}

TEST_F(GenerationTest, ASubmissionThatIsRefusedRefusesTheRequest) {
  config()->set_candidate_count(2);
  service_.refuse_after = 1;
  service_.refusal = QueueFull(absl::Seconds(2));
  Start(&reader_);
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryDelayOf(said.status), absl::Seconds(2));
  service_.AwaitRelease(0);
}

TEST_F(GenerationTest, ResumesAfterTokensWithoutSayingThemAgain) {
  const std::string all = "one ##x two ### three";
  config()->add_stop_sequences("###");
  config()->set_seed(3);
  for (size_t cut = 0; cut < all.find("###") + 3; ++cut) {
    request_.clear_resume_token_ids();
    Reader first, second;
    Start(&first);
    Submission& before = service_.Await(service_.n_submitted() == 0 ? 0 : 2 * cut);
    before.Say(all.substr(0, cut));
    first.Drain();
    first.Leave();
    for (size_t i = 0; i < cut; ++i) request_.add_resume_token_ids(static_cast<uint8_t>(all[i]));
    Start(&second);
    Submission& after = service_.Await(2 * cut + 1);
    EXPECT_EQ(after.request.resumed.size(), cut);
    after.Say(all.substr(cut));
    second.ToEnd();
    EXPECT_EQ(first.said.text() + second.said.text(), "one ##x two ") << "cut at " << cut;
    EXPECT_EQ(second.said.finish().matched_stop(), "###");
    EXPECT_EQ(second.said.summary().usage().output_tokens(), all.find("###") + 3);
  }
}

TEST_F(GenerationTest, ResumedAtItsStopStringEndsAtOnce) {
  config()->add_stop_sequences("b");
  config()->set_seed(3);
  request_.add_resume_token_ids('a');
  request_.add_resume_token_ids('b');
  Start(&reader_);
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.status, absl::OkStatus());
  EXPECT_EQ(said.finish().matched_stop(), "b");
  EXPECT_EQ(said.summary().usage().output_tokens(), 2);
  EXPECT_EQ(service_.n_submitted(), 0);
}

TEST_F(GenerationTest, ResumedAtItsLengthTellsOfThePromptWhatWasAsked) {
  output()->set_prompt_logprobs(true);
  output()->set_routing_trace(true);
  config()->set_seed(3);
  service_.max_tokens = 5;  // <bos> h i, and two
  Restart();
  request_.add_resume_token_ids('a');
  request_.add_resume_token_ids('b');
  int index = 0;
  for (const auto& [max_output_tokens, reason] :
       {std::pair(2, inference::v1::FINISH_REASON_LENGTH),
        std::pair(9, inference::v1::FINISH_REASON_CONTEXT_LENGTH)}) {
    Reader reader;
    config()->set_max_output_tokens(max_output_tokens);
    Start(&reader);
    Submission& submission = service_.Await(index++);
    EXPECT_TRUE(submission.request.score_prompt);
    EXPECT_EQ(submission.request.max_output_tokens, 0);
    EXPECT_TRUE(submission.request.resumed.empty());
    submission.listener->OnTrace(Trace(0, 3));
    submission.End(StopCause::kPromptDone);
    const Said& said = reader.ToEnd();
    EXPECT_EQ(said.status, absl::OkStatus());
    EXPECT_EQ(said.started().prompt().routing_trace().n_tokens(), 3);
    EXPECT_EQ(said.text(), "");
    EXPECT_EQ(said.finish().reason(), reason);
    EXPECT_EQ(said.summary().usage().output_tokens(), 2);
  }
}

TEST_F(GenerationTest, TellsLogprobsWithRawBytes) {
  output()->set_top_logprobs(2);
  Submission& submission = StartAndAwait();
  EXPECT_TRUE(submission.request.sampling.want_logprob);
  submission.Token(0xe2);
  reader_.Drain();
  const auto delta = reader_.said.events.at(1).delta();
  EXPECT_EQ(delta.text(), "");
  EXPECT_EQ(delta.logprobs(0).token(), "\xe2");
  EXPECT_EQ(delta.logprobs(0).logprob(), -0.5f);
  EXPECT_EQ(delta.logprobs(0).top(1).token_id(), 0xe3);
  EXPECT_EQ(delta.token_ids_size(), 0);
  submission.Stop();
  EXPECT_EQ(reader_.ToEnd().text(), "\xef\xbf\xbd");
}

TEST_F(GenerationTest, WaitsWithTheStartForWhatWasAskedAboutThePrompt) {
  output()->set_prompt_logprobs(true);
  output()->set_token_ids(true);
  config()->set_candidate_count(2);
  Start(&reader_);
  Submission& other = service_.Await(1);
  Submission& submission = service_.Await(0);
  EXPECT_TRUE(submission.request.score_prompt);
  EXPECT_FALSE(other.request.score_prompt);
  other.Say("early");
  EXPECT_FALSE(reader_.Drain());
  EXPECT_TRUE(reader_.said.events.empty());
  Sampled h, i;
  h.token = 'h';
  h.logprob = -1;
  i.token = 'i';
  i.logprob = -2;
  submission.listener->OnPromptScores(0, {h});
  submission.listener->OnPromptScores(1, {i});
  submission.Say("x");
  submission.Stop();
  other.Stop();
  const Said& said = reader_.ToEnd();
  const auto& prompt = said.started().prompt();
  ASSERT_EQ(prompt.logprobs_size(), 3);
  EXPECT_FALSE(prompt.logprobs(0).has_logprob());
  EXPECT_EQ(prompt.logprobs(0).token_id(), FakeCodec::kBos);
  EXPECT_EQ(prompt.logprobs(1).logprob(), -1);
  EXPECT_EQ(prompt.logprobs(2).logprob(), -2);
  EXPECT_EQ(prompt.token_ids_size(), 3);
  EXPECT_EQ(said.text(1), "early");
}

TEST_F(GenerationTest, TracesPromptAndOutputPositionsOnce) {
  output()->set_routing_trace(true);
  config()->set_seed(1);
  request_.add_resume_token_ids('r');
  request_.add_resume_token_ids('s');
  Submission& submission = StartAndAwait();
  submission.listener->OnTrace(Trace(0, 2));
  submission.listener->OnTrace(Trace(2, 3));  // the last of the prompt, two resumed
  submission.Token('t');
  submission.listener->OnTrace(Trace(5, 1));
  submission.Stop();
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.started().prompt().routing_trace().n_tokens(), 3);
  EXPECT_EQ(said.started().prompt().routing_trace().shard_names(0), "expert-1");
  // The last resumed token's routes came with no token of the first stream.
  EXPECT_EQ(said.events.at(1).delta().routing_trace().first_position(), 4);
  EXPECT_EQ(said.events.at(1).delta().routing_trace().n_tokens(), 2);
}

TEST_F(GenerationTest, AGapInTheTraceIsAnError) {
  output()->set_routing_trace(true);
  Submission& submission = StartAndAwait();
  submission.listener->OnTrace(Trace(0, 1));
  submission.listener->OnTrace(Trace(2, 1));
  EXPECT_EQ(reader_.ToEnd().status.code(), absl::StatusCode::kInternal);
}

TEST_F(GenerationTest, PassesDeadlinePriorityAndLimitsOn) {
  deadline_ = now_ + absl::Seconds(9);
  request_.mutable_request()->set_priority(-4);
  config()->set_max_output_tokens(7);
  Submission& submission = StartAndAwait();
  EXPECT_EQ(submission.request.deadline, deadline_);
  EXPECT_EQ(submission.request.priority, -4);
  EXPECT_EQ(submission.request.max_output_tokens, 7);
}

TEST_F(GenerationTest, TheSchedulerKnowsTheIdThatTheCallerIsTold) {
  config()->set_candidate_count(2);
  int index = 0;
  for (const std::string& given : {std::string(), std::string("mine")}) {
    request_.mutable_request()->set_request_id(given);
    Reader reader;
    Start(&reader);
    std::vector<std::string> known;
    for (int candidate = 0; candidate < 2; ++candidate) {
      Submission& submission = service_.Await(index++);
      known.push_back(submission.request.request_id);
      submission.Stop();
    }
    const std::string& told = reader.ToEnd().started().request_id();
    EXPECT_EQ(known, std::vector<std::string>(2, told));
    if (given.empty()) {
      EXPECT_EQ(told.size(), 32);
    } else {
      EXPECT_EQ(told, given);
    }
  }
}

TEST_F(GenerationTest, OutOfTimeBeforeItWasSubmittedIsDeadlineExceeded) {
  deadline_ = now_;
  Start(&reader_);
  EXPECT_EQ(reader_.ToEnd().status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(service_.n_submitted(), 0);
}

// gRPC takes the call away at its deadline, often before the scheduler looks at the time.
TEST_F(GenerationTest, ACallThatIsTakenAwayAtItsDeadlineIsNotCountedAsCancelled) {
  deadline_ = now_ + absl::Seconds(2);
  StartAndAwait().Token('a');
  now_ = deadline_;
  reader_.Leave();
  EXPECT_EQ(Report().status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Report().n_output_tokens, 1);
}

TEST_F(GenerationTest, NeitherIsAScore) {
  deadline_ = now_ + absl::Seconds(2);
  inference::v1::ScoreTextRequest score;
  score.mutable_prompt()->set_text("hi");
  auto call = gateway_->Score(score, deadline_, [](const auto& /*answer*/) {});
  service_.Await(0).Begin();
  now_ = deadline_;
  call.reset();
  EXPECT_EQ(Report().status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(GenerationTest, TimesAreCountedFromArrival) {
  output()->set_timings(true);
  Submission& submission = StartAndAwait();
  now_ += absl::Seconds(2);
  submission.Begin();
  now_ += absl::Seconds(1);
  submission.Token('a');
  now_ += absl::Milliseconds(1500);
  submission.Token('b');
  submission.Stop();
  const auto& timings = reader_.ToEnd().summary().timings();
  EXPECT_EQ(timings.queue().seconds(), 2);
  EXPECT_EQ(timings.prefill().seconds(), 1);
  EXPECT_EQ(timings.first_token().seconds(), 3);
  EXPECT_EQ(timings.decode().seconds(), 1);
  EXPECT_EQ(timings.decode().nanos(), 500'000'000);
  EXPECT_EQ(observer_.n_first_tokens, 1);
  EXPECT_EQ(observer_.n_next_tokens, 1);
  EXPECT_EQ(Report().queue, absl::Seconds(2));
  EXPECT_EQ(Report().n_prompt_tokens, 3);
}

TEST_F(GenerationTest, WhoLeftAfterTheFirstStepIsKnownToHaveBegun) {
  config()->set_candidate_count(2);
  Start(&reader_);
  Submission& second = service_.Await(1);
  now_ += absl::Seconds(2);
  second.Begin();
  now_ += absl::Seconds(1);
  service_.Await(0).Begin();
  second.Token('a');
  reader_.Leave();
  EXPECT_EQ(Report().status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Report().queue, absl::Seconds(2));
  EXPECT_EQ(Report().n_output_tokens, 1);
}

TEST_F(GenerationTest, AnAdministratorsEndTellsWhatWasCachedAndWhatWentWithoutAnExpert) {
  request_.mutable_request()->set_request_id("r1");
  Submission& submission = StartAndAwait();
  submission.Begin(2);
  submission.listener->OnDegraded(1);
  submission.listener->OnDegraded(3);
  submission.Token('a');
  EXPECT_TRUE(gateway_->CancelRequest("r1"));
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.finish().reason(), inference::v1::FINISH_REASON_CANCELLED);
  EXPECT_EQ(said.summary().usage().cached_tokens(), 2);
  EXPECT_EQ(said.summary().usage().output_tokens(), 1);
  EXPECT_EQ(said.summary().degraded_tokens(), 4);
}

TEST_F(GenerationTest, SaysThatNumericsWereMixedThoughTheyAreNotAtItsEnd) {
  Submission& submission = StartAndAwait();
  submission.Token('a');
  cluster_.mixed = true;
  ++cluster_.version;
  submission.Token('b');
  cluster_.mixed = false;
  ++cluster_.version;
  submission.Token('c');
  submission.Stop();
  EXPECT_TRUE(reader_.ToEnd().summary().mixed_numerics());
  EXPECT_EQ(reader_.said.summary().topology_version(), 9);
  Reader later;
  Start(&later);
  service_.Await(1).Stop();
  EXPECT_FALSE(later.ToEnd().summary().mixed_numerics());
  absl::MutexLock lock(&observer_.mu);
  EXPECT_TRUE(observer_.reports.at(0).mixed_numerics);
  EXPECT_EQ(observer_.reports.at(0).topology_version, 9u);
  EXPECT_FALSE(observer_.reports.at(1).mixed_numerics);
}

TEST_F(GenerationTest, SaysHowMuchOfAPromptWasLeftOut) {
  auto* ids = request_.mutable_request()->mutable_prompt()->mutable_token_ids();
  for (int i = 0; i < 200; ++i) ids->add_ids(1);
  config()->set_max_output_tokens(4);
  request_.mutable_request()->set_truncation_policy(inference::v1::TRUNCATION_POLICY_KEEP_END);
  Submission& submission = StartAndAwait();
  const int n_kept = static_cast<int>(submission.request.prompt.size());
  EXPECT_LT(n_kept, 200);
  submission.Token('a');
  submission.Stop();
  EXPECT_EQ(reader_.ToEnd().events.at(0).started().prompt().n_truncated_tokens(), 200 - n_kept);
  EXPECT_EQ(Report().n_truncated_tokens, 200 - n_kept);
}

TEST_F(GenerationTest, RefusalsNameWhatIsWrongAndAreCounted) {
  config()->set_top_p(2);
  Start(&reader_);
  EXPECT_EQ(ReasonOf(reader_.ToEnd().status), kBadRequest);
  EXPECT_EQ(observer_.n_started, 1);
  EXPECT_EQ(Report().status.code(), absl::StatusCode::kInvalidArgument);
  config()->Clear();
  for (const std::string& text : {std::string(64, 'x'), std::string("unencodable")}) {
    request_.mutable_request()->mutable_prompt()->set_text(text);
    Reader reader;
    Start(&reader);
    EXPECT_EQ(reader.ToEnd().status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(service_.n_submitted(), 0);
}

TEST_F(GenerationTest, ARefusedRequestIsReportedWithItsIdIfThatIsOne) {
  config()->set_top_p(2);
  inference::v1::ScoreTextRequest score;
  score.set_top_logprobs(21);
  for (const std::string& id : {std::string("mine"), std::string("not one")}) {
    request_.mutable_request()->set_request_id(id);
    Reader reader;
    Start(&reader);
    EXPECT_EQ(ReasonOf(reader.ToEnd().status), kBadRequest);
    score.set_request_id(id);
    auto call = gateway_->Score(score, deadline_, [](const auto& /*answer*/) {});
  }
  absl::MutexLock lock(&observer_.mu);
  std::vector<std::string> ids;
  for (const RequestReport& report : observer_.reports) ids.push_back(report.refused_id);
  EXPECT_EQ(ids, (std::vector<std::string>{"mine", "mine", "", ""}));
}

TEST_F(GenerationTest, RefusesWhenTooManyArePreparing) {
  options_.max_preparing = 1;
  options_.n_preparation_threads = 1;
  Restart();
  codec_->Close();
  Reader readers[3];
  Start(&readers[0]);
  codec_->AwaitEncoding(1);
  Start(&readers[1]);  // waits in the queue
  Start(&readers[2]);
  EXPECT_EQ(readers[2].ToEnd().status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(readers[2].said.status), kQueueFull);
  codec_->Open();
  service_.Await(1).Stop();
  EXPECT_EQ(readers[1].ToEnd().status, absl::OkStatus());
}

TEST_F(GenerationTest, AnAdministratorEndsItInGoodOrder) {
  request_.mutable_request()->set_request_id("r9");
  Submission& submission = StartAndAwait();
  submission.Say("abc");
  EXPECT_TRUE(gateway_->CancelRequest("r9"));
  service_.AwaitRelease(0);
  const Said& said = reader_.ToEnd();
  EXPECT_EQ(said.status, absl::OkStatus());
  EXPECT_EQ(said.finish().reason(), inference::v1::FINISH_REASON_CANCELLED);
  EXPECT_EQ(said.text(), "abc");
  EXPECT_FALSE(gateway_->CancelRequest("r9"));
}

}  // namespace
}  // namespace gatefold

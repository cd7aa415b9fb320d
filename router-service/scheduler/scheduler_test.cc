#include "router-service/scheduler/scheduler.h"

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/engine/router_model.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int kNanAfter = 400;  // the model computes NaN for this token

// Stands for an attention-service: every drawn token is the one before plus one. Looks at what a
// real one would rely on, and fails on request.
class FakeAttention final : public AttentionClient {
 public:
  struct Shared {
    absl::Mutex mu;
    std::map<SequenceId, int> held ABSL_GUARDED_BY(mu);  // positions computed
    int free_sequences ABSL_GUARDED_BY(mu) = 1000;
    bool away ABSL_GUARDED_BY(mu) = false;    // no service takes a sequence
    int n_cached ABSL_GUARDED_BY(mu) = 0;     // what the next sequences find in the prefix cache
    int max_cached ABSL_GUARDED_BY(mu) = -1;  // what the last one would have taken
    int n_rows ABSL_GUARDED_BY(mu) = 0;       // computed
    int largest_step ABSL_GUARDED_BY(mu) = 0;
    int largest_batch ABSL_GUARDED_BY(mu) = 0;
    std::vector<absl::Status> failures ABSL_GUARDED_BY(mu);  // of the next steps, last first
    bool fills_up ABSL_GUARDED_BY(mu) = false;  // who lost a sequence opens it at the second try
    int n_full ABSL_GUARDED_BY(mu) = 0;         // so many openings find no room
    absl::Notification* gate ABSL_GUARDED_BY(mu) = nullptr;  // steps wait for it
  };

  explicit FakeAttention(Shared* shared) : shared_(shared) {}

  absl::StatusOr<int> Open(const SequenceSpec& spec) override {
    absl::MutexLock lock(&shared_->mu);
    if (shared_->away) return absl::UnavailableError("no attention-service is ready");
    if (shared_->free_sequences == 0 || shared_->n_full > 0) {
      shared_->n_full = std::max(0, shared_->n_full - 1);
      return absl::ResourceExhaustedError("no KV blocks");
    }
    --shared_->free_sequences;
    const int n_cached = std::min(shared_->n_cached, spec.max_cached);
    shared_->held[spec.id] = n_cached;
    shared_->max_cached = spec.max_cached;
    return n_cached;
  }
  void Close(SequenceId sequence) override {
    absl::MutexLock lock(&shared_->mu);
    shared_->free_sequences += static_cast<int>(shared_->held.erase(sequence));
  }
  absl::Status EmbedAndAttend(const Step& step, float* /*x*/) override {
    absl::Notification* gate = nullptr;
    {
      absl::MutexLock lock(&shared_->mu);
      std::swap(gate, shared_->gate);
    }
    if (gate != nullptr) gate->WaitForNotification();
    absl::MutexLock lock(&shared_->mu);
    if (!shared_->failures.empty()) {
      const absl::Status failure = shared_->failures.back();
      shared_->failures.pop_back();
      if (absl::IsAborted(failure)) {
        shared_->free_sequences += static_cast<int>(shared_->held.size());
        shared_->held.clear();
        shared_->n_full = shared_->fills_up;
      }
      return failure;
    }
    shared_->largest_step = std::max(shared_->largest_step, step.n_rows());
    shared_->largest_batch = std::max(shared_->largest_batch, static_cast<int>(step.spans.size()));
    shared_->n_rows += step.n_rows();
    for (const StepSpan& span : step.spans) {
      const auto held = shared_->held.find(span.sequence);
      if (held == shared_->held.end()) return absl::AbortedError("not here");
      EXPECT_LE(span.first_position, held->second);
      held->second = span.first_position + span.n_tokens;
    }
    return absl::OkStatus();
  }
  absl::Status Attend(const Step&, int, float*) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<Sampled>> Sample(const Step& step, const float*) override {
    std::vector<Sampled> sampled;
    for (const SampleRequest& sample : step.samples) {
      Sampled& one = sampled.emplace_back();
      one.token = sample.score ? sample.target : step.token_ids[sample.row] + 1;
      one.not_a_number = step.token_ids[sample.row] == kNanAfter;
    }
    return sampled;
  }

 private:
  Shared* const shared_;
};

// Stands for the shards: no expert is ever computed. One of them may be gone, which rows of tokens
// from `needed_from` on need.
class FakeExperts final : public ExpertClient {
 public:
  static constexpr int kLayer = 1, kExpert = 3;
  struct Shared {
    std::atomic<bool> gone = false;
    std::atomic<bool> degraded = false;  // rows go on without it
    std::atomic<bool> silent = false;    // it is there, but does not answer
    std::atomic<int> n_stale = 0;        // so many runs fail for it although it is there
    std::atomic<int> needed_from = 1000;
    std::atomic<int> n_failed = 0;
  };
  explicit FakeExperts(Shared* shared) : shared_(shared) {}

  absl::Status Run(const Step& step, int layer, const float*, const Routes& routes, float*,
                   uint8_t* served_by) override {
    std::fill_n(served_by, routes.experts.size(), 0);
    missing_.clear();
    const bool stale = layer == kLayer && !shared_->gone && shared_->n_stale > 0;
    if (stale) --shared_->n_stale;
    const bool lacks = layer == kLayer && (shared_->gone || stale);
    for (int row = 0; row < step.n_rows() && lacks; ++row) {
      if (step.token_ids[row] < shared_->needed_from) continue;
      if (shared_->degraded) {
        served_by[row * routes.top_k] = kNoShard;
      } else {
        missing_.push_back({row, layer, kExpert,
                            ExpertUnavailable(layer, kExpert, absl::Seconds(1)),
                            stale || shared_->silent});
      }
    }
    if (missing_.empty()) return absl::OkStatus();
    ++shared_->n_failed;
    return missing_[0].why;
  }
  const std::vector<MissingExpert>& missing() const override { return missing_; }
  ExpertState StateOf(int layer, int expert) override {
    if (layer != kLayer || expert != kExpert || !shared_->gone) return ExpertState::kLive;
    return shared_->silent ? ExpertState::kSilent : ExpertState::kNotHeld;
  }

 private:
  Shared* const shared_;
  std::vector<MissingExpert> missing_;
};

class Recorder final : public GenerationListener {
 public:
  explicit Recorder(int stop_after = 1 << 30) : stop_after_(stop_after) {}
  void OnFirstStep(int n_cached) override {
    ++n_first_steps;
    n_cached_tokens = n_cached;
  }
  void OnDegraded(int n_tokens) override { n_degraded_tokens += n_tokens; }
  void OnPromptScores(int first_position, const std::vector<Sampled>& scores) override {
    EXPECT_EQ(first_position, static_cast<int>(targets.size()));
    for (const Sampled& score : scores) targets.push_back(score.token);
  }
  bool OnToken(const Sampled& token) override {
    tokens.push_back(token.token);
    if (on_token) on_token();
    return static_cast<int>(tokens.size()) < stop_after_;
  }
  void OnEnd(const GenerationEnd& how) override {
    end = how;
    done.Notify();
  }

  std::vector<int32_t> tokens;
  std::vector<int32_t> targets;
  int n_first_steps = 0;
  int n_cached_tokens = -1;
  int n_degraded_tokens = 0;
  std::function<void()> on_token;
  GenerationEnd end;
  absl::Notification done;

 private:
  const int stop_after_;
};

GenerationRequest Request(std::vector<int32_t> prompt, int max_output_tokens) {
  GenerationRequest request;
  request.prompt = std::move(prompt);
  request.max_output_tokens = max_output_tokens;
  return request;
}

class SchedulerTest : public testing::Test {
 protected:
  void Start(SchedulerOptions options, int n_lanes = 1) {
    std::vector<LaneEngine> engines;
    for (int i = 0; i < n_lanes; ++i) {
      LaneEngine engine;
      engine.attention = std::make_unique<FakeAttention>(&shared_);
      engine.experts = std::make_unique<FakeExperts>(&experts_);
      engine.loop =
          std::make_unique<StepLoop>(model_->config(), engine.attention.get(), engine.experts.get(),
                                     MakeHostRows(model_.get(), &threads_, DType::kF32));
      engines.push_back(std::move(engine));
    }
    auto scheduler = Scheduler::Create(options, std::move(engines), nullptr);
    ASSERT_TRUE(scheduler.ok()) << scheduler.status();
    scheduler_ = *std::move(scheduler);
  }

  std::unique_ptr<GenerationService::Handle> Submit(GenerationRequest request,
                                                    std::shared_ptr<Recorder> recorder) {
    auto handle = scheduler_->Submit(std::move(request), std::move(recorder));
    EXPECT_TRUE(handle.ok()) << handle.status();
    return *std::move(handle);
  }

  void AwaitIdle() {
    while (scheduler_->load().n_running > 0) absl::SleepFor(absl::Milliseconds(1));
  }

  int n_held() {
    absl::MutexLock lock(&shared_.mu);
    return static_cast<int>(shared_.held.size());
  }

  std::unique_ptr<ModelWeights> weights_ = *ModelWeights::Open("tests/golden/llama/f32");
  std::unique_ptr<RouterModel> model_ = *RouterModel::Load(*weights_);
  ThreadPool threads_{1, absl::ZeroDuration()};
  FakeAttention::Shared shared_;
  FakeExperts::Shared experts_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(SchedulerTest, GeneratesUntilTheMaximum) {
  Start({});
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({5, 10}, 3), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12, 13));
  EXPECT_EQ(recorder->end.cause, StopCause::kMaxTokens);
  EXPECT_EQ(recorder->end.n_output_tokens, 3);
}

// Takes its time over being told the end.
class SlowListener final : public GenerationListener {
 public:
  void OnPromptScores(int, const std::vector<Sampled>&) override {}
  bool OnToken(const Sampled&) override { return true; }
  void OnEnd(const GenerationEnd&) override {
    called.Notify();
    absl::SleepFor(absl::Milliseconds(50));
    returned = true;
  }

  absl::Notification called;
  std::atomic<bool> returned = false;
};

TEST_F(SchedulerTest, CallsNoListenerOnceStopped) {
  Start({});
  auto listener = std::make_shared<SlowListener>();
  auto handle = scheduler_->Submit(Request({5, 10}, 3), listener);
  ASSERT_TRUE(handle.ok()) << handle.status();
  listener->called.WaitForNotification();
  scheduler_->Stop();
  EXPECT_TRUE(listener->returned);
  EXPECT_FALSE(scheduler_->Submit(Request({5}, 1), std::make_shared<Recorder>()).ok());
  scheduler_->Stop();  // once more does nothing
}

TEST_F(SchedulerTest, EndsOnlyTheSequenceWhoseLogitsAreNan) {
  Start({});
  auto recorder = std::make_shared<Recorder>(), other = std::make_shared<Recorder>();
  auto handle = Submit(Request({kNanAfter - 2}, 9), recorder);
  auto other_handle = Submit(Request({10}, 9), other);
  recorder->done.WaitForNotification();
  other->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(kNanAfter - 1, kNanAfter));
  EXPECT_EQ(recorder->end.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(recorder->end.status.message()), testing::HasSubstr("NaN at position 2"));
  EXPECT_EQ(other->end.cause, StopCause::kMaxTokens);
}

TEST_F(SchedulerTest, NamesTheFirstPositionWithNanWhateverTheSteps) {
  for (int max_step_tokens : {1, 2, 3, 64}) {
    Start({.max_step_tokens = max_step_tokens});
    auto recorder = std::make_shared<Recorder>();
    GenerationRequest request = Request({10, 11, kNanAfter, 12, kNanAfter, 13}, 0);
    request.score_prompt = true;
    auto handle = Submit(std::move(request), recorder);
    recorder->done.WaitForNotification();
    EXPECT_THAT(std::string(recorder->end.status.message()),
                testing::HasSubstr("NaN at position 2"))
        << max_step_tokens;
  }
}

TEST_F(SchedulerTest, WaitsForAttentionButNotForEver) {
  SchedulerOptions options;
  options.step_retry_timeout = absl::Milliseconds(30);
  Start(options);
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.away = true;
  }
  for (int i = 0; i < 2; ++i) {  // the second is told at once
    auto recorder = std::make_shared<Recorder>();
    auto handle = Submit(Request({5, 10}, 3), recorder);
    recorder->done.WaitForNotification();
    EXPECT_EQ(recorder->end.status.code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(recorder->end.status.message(), "no attention-service is ready");
  }
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.away = false;
  }
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({5, 10}, 3), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12, 13));
}

// Whoever waited may have left before it came back, so that no lane saw it come.
TEST_F(SchedulerTest, AnEarlierLossOfAttentionIsForgotten) {
  SchedulerOptions options;
  options.step_retry_timeout = absl::Seconds(2);
  Start(options);
  const auto set_away = [this](bool away) {
    absl::MutexLock lock(&shared_.mu);
    shared_.away = away;
  };
  set_away(true);
  auto left = std::make_shared<Recorder>();
  GenerationRequest hasty = Request({5, 10}, 3);
  hasty.deadline = absl::Now() + absl::Milliseconds(20);
  auto left_handle = Submit(std::move(hasty), left);
  left->done.WaitForNotification();
  EXPECT_EQ(left->end.status.code(), absl::StatusCode::kDeadlineExceeded);
  absl::SleepFor(absl::Milliseconds(2100));  // nothing is tried meanwhile, so nothing tells

  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({5, 10}, 3), recorder);
  EXPECT_FALSE(recorder->done.WaitForNotificationWithTimeout(absl::Milliseconds(50)));
  set_away(false);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12, 13));
}

TEST_F(SchedulerTest, StopsAtWhateverMomentItIsTold) {
  for (int i = 0; i < 500; ++i) {
    Start({}, 2);
    auto recorder = std::make_shared<Recorder>();
    auto handle = Submit(Request({5, 10}, 1), recorder);
    recorder->done.WaitForNotification();  // the lanes are about to wait
    scheduler_->Stop();
    handle.reset();
    scheduler_.reset();
  }
}

TEST_F(SchedulerTest, StopsAtAStopTokenWithoutTellingIt) {
  Start({});
  auto recorder = std::make_shared<Recorder>();
  GenerationRequest request = Request({10}, 50);
  request.stop_token_ids = {13};
  auto handle = Submit(request, recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12));
  EXPECT_EQ(recorder->end.cause, StopCause::kStopToken);
  EXPECT_EQ(recorder->end.stop_token, 13);
}

TEST_F(SchedulerTest, StopsWhenTheListenerSaysSo) {
  Start({});
  auto recorder = std::make_shared<Recorder>(2);
  auto handle = Submit(Request({10}, 50), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12));
  EXPECT_EQ(recorder->end.cause, StopCause::kListener);
}

TEST_F(SchedulerTest, StopsAtTheModelsLength) {
  SchedulerOptions options;
  options.max_sequence_tokens = 4;
  Start(options);
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({10, 10}, 50), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12));
  EXPECT_EQ(recorder->end.cause, StopCause::kContextLength);
}

TEST_F(SchedulerTest, KeepsStepsWithinTheTokenBudget) {
  SchedulerOptions options;
  options.max_step_tokens = 7;
  Start(options);
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request(std::vector<int32_t>(30, 4), 2), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(5, 6));
  absl::MutexLock lock(&shared_.mu);
  EXPECT_EQ(shared_.largest_step, 7);
}

TEST_F(SchedulerTest, ScoresThePromptOnceInOrder) {
  SchedulerOptions options;
  options.max_step_tokens = 2;
  Start(options);
  auto recorder = std::make_shared<Recorder>();
  GenerationRequest request = Request({7, 8, 9, 3, 2}, 0);
  request.score_prompt = true;
  {
    absl::MutexLock lock(&shared_.mu);
    // The second step loses its keys and values: scores told before are not told again.
    shared_.failures = {absl::AbortedError("lost"), absl::UnavailableError("try again")};
  }
  auto handle = Submit(request, recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->targets, ElementsAre(8, 9, 3, 2, -1));
  EXPECT_EQ(recorder->end.cause, StopCause::kPromptDone);
}

TEST_F(SchedulerTest, ResumesAfterTokensProducedElsewhere) {
  Start({});
  auto recorder = std::make_shared<Recorder>();
  GenerationRequest request = Request({10}, 4);
  request.resumed = {11, 12};
  auto handle = Submit(request, recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(13, 14));
  EXPECT_EQ(recorder->end.n_output_tokens, 4);

  auto complete = std::make_shared<Recorder>();
  request.resumed = {11, 12, 13, 14};
  auto second = Submit(request, complete);
  complete->done.WaitForNotification();
  EXPECT_THAT(complete->tokens, IsEmpty());
  EXPECT_EQ(complete->end.cause, StopCause::kMaxTokens);
}

TEST_F(SchedulerTest, GoesOnAfterAttentionLostTheSequence) {
  Start({});
  auto recorder = std::make_shared<Recorder>();
  recorder->on_token = [&] {
    if (recorder->tokens.size() != 2) return;
    absl::MutexLock lock(&shared_.mu);
    shared_.failures = {absl::AbortedError("killed")};
  };
  auto handle = Submit(Request({10}, 5), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12, 13, 14, 15));
  EXPECT_EQ(recorder->n_first_steps, 1);
}

// Where it could go on there are no KV blocks: it stands in line, however long steps are retried.
TEST_F(SchedulerTest, WaitsForKvBlocksAfterAttentionLostTheSequence) {
  SchedulerOptions options;
  options.step_retry_timeout = absl::Milliseconds(30);
  Start(options);
  auto recorder = std::make_shared<Recorder>();
  absl::Notification lost;
  recorder->on_token = [&] {
    if (recorder->tokens.size() != 2) return;
    absl::MutexLock lock(&shared_.mu);
    shared_.failures = {absl::AbortedError("killed")};
    shared_.free_sequences = -1;  // none, once its own is gone
    lost.Notify();
  };
  auto handle = Submit(Request({10}, 5), recorder);
  lost.WaitForNotification();
  EXPECT_FALSE(recorder->done.WaitForNotificationWithTimeout(absl::Milliseconds(200)));
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.free_sequences = 1;
  }
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12, 13, 14, 15));
}

// And what it waits for in line does not hide that every try fails.
TEST_F(SchedulerTest, EndsWhatIsLostWhereverItGoesOn) {
  SchedulerOptions options;
  options.step_retry_timeout = absl::Milliseconds(30);
  options.step_retry_delay = absl::Milliseconds(1);
  Start(options);
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.failures.assign(100'000, absl::AbortedError("killed"));
    shared_.fills_up = true;
  }
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({10}, 5), recorder);
  EXPECT_TRUE(recorder->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(recorder->end.status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(SchedulerTest, ComputesOnlyWhatThePrefixCacheHasNot) {
  Start({});
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.n_cached = 3;
  }
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({6, 7, 8, 9, 10}, 2), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(11, 12));
  EXPECT_EQ(recorder->n_cached_tokens, 3);
  absl::MutexLock lock(&shared_.mu);
  EXPECT_EQ(shared_.max_cached, 4);  // the last row draws the token
  EXPECT_EQ(shared_.n_rows, 3);
}

TEST_F(SchedulerTest, ComputesEveryPositionThatIsScoredOrTraced) {
  Start({});
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.n_cached = 1000;
  }
  GenerationRequest score = Request({6, 7, 8, 9}, 0);
  score.score_prompt = true;
  auto scored = std::make_shared<Recorder>();
  auto first = Submit(score, scored);
  scored->done.WaitForNotification();
  EXPECT_EQ(scored->targets.size(), 4u);
  EXPECT_EQ(scored->n_cached_tokens, 0);
  GenerationRequest trace = Request({6, 7, 8, 9}, 2);
  trace.want_trace = true;
  auto traced = std::make_shared<Recorder>();
  auto second = Submit(trace, traced);
  traced->done.WaitForNotification();
  absl::MutexLock lock(&shared_.mu);
  EXPECT_EQ(shared_.max_cached, 0);
  EXPECT_EQ(shared_.n_rows, 4 + 5);
}

TEST_F(SchedulerTest, TakesFromTheCacheWhatWasScoredBeforeItWasLost) {
  Start({});
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.n_cached = 1000;
  }
  auto recorder = std::make_shared<Recorder>();
  recorder->on_token = [&] {
    if (recorder->tokens.size() != 2) return;
    absl::MutexLock lock(&shared_.mu);
    shared_.failures = {absl::AbortedError("killed")};
  };
  GenerationRequest request = Request({6, 7, 8, 9}, 4);
  request.score_prompt = true;
  auto handle = Submit(request, recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(10, 11, 12, 13));
  EXPECT_EQ(recorder->targets.size(), 3u);
  EXPECT_EQ(recorder->n_cached_tokens, 0);  // of the prompt, when it began
  absl::MutexLock lock(&shared_.mu);
  EXPECT_EQ(shared_.max_cached, 5);
}

TEST_F(SchedulerTest, EndsWhatFailsForTooLong) {
  SchedulerOptions options;
  options.step_retry_timeout = absl::ZeroDuration();
  Start(options);
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.failures = {absl::UnavailableError("layer 1 expert 2 has no shard")};
  }
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({10}, 5), recorder);
  recorder->done.WaitForNotification();
  EXPECT_EQ(recorder->end.cause, StopCause::kError);
  EXPECT_EQ(recorder->end.status, absl::UnavailableError("layer 1 expert 2 has no shard"));
}

TEST_F(SchedulerTest, TellsAFailureThatRepeatsOnceInAWhile) {
  SchedulerOptions options;
  options.step_retry_delay = absl::Milliseconds(1);
  Start(options);
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.failures.assign(30, absl::UnavailableError("the same"));
    shared_.failures.front() = absl::UnavailableError("another");  // the last
  }
  testing::internal::CaptureStderr();
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({10}, 3), recorder);
  recorder->done.WaitForNotification();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_EQ(recorder->tokens.size(), 3u);
  int n_told = 0;  // of 29, one a second at most
  for (size_t at = log.find("the same"); at != log.npos; at = log.find("the same", at + 1))
    ++n_told;
  EXPECT_GE(n_told, 1);
  EXPECT_LE(n_told, 15);
  EXPECT_THAT(log, testing::HasSubstr("error=another"));
}

// Tokens count up, so a prompt of 998 needs the expert from its third token on.
TEST_F(SchedulerTest, OnlyThoseWhoNeedAMissingExpertWaitForIt) {
  Start({});
  experts_.gone = true;
  auto needs = std::make_shared<Recorder>();
  auto waiting = Submit(Request({998}, 5), needs);
  for (int i = 0; i < 5; ++i) {
    auto other = std::make_shared<Recorder>();
    auto handle = Submit(Request({10}, 20), other);
    other->done.WaitForNotification();
    EXPECT_EQ(other->tokens.size(), 20u);
  }
  EXPECT_FALSE(needs->done.HasBeenNotified());
  EXPECT_EQ(scheduler_->load().n_waiting_for_expert, 1);
  // It rides in no step in vain.
  EXPECT_EQ(experts_.n_failed, 1);
  experts_.gone = false;
  needs->done.WaitForNotification();
  EXPECT_THAT(needs->tokens, ElementsAre(999, 1000, 1001, 1002, 1003));
  waiting.reset();
  AwaitIdle();
}

TEST_F(SchedulerTest, ADeadlineThatPassesForWantOfAnExpertSaysSo) {
  Start({});
  experts_.gone = true;
  auto recorder = std::make_shared<Recorder>();
  GenerationRequest request = Request({1000}, 5);
  request.deadline = absl::Now() + absl::Milliseconds(200);
  auto handle = Submit(request, recorder);
  recorder->done.WaitForNotification();
  EXPECT_LT(absl::Now(), request.deadline);  // in time to be heard
  EXPECT_EQ(recorder->end.cause, StopCause::kError);
  EXPECT_EQ(recorder->end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(recorder->end.status), kExpertUnavailable);
  EXPECT_THAT(std::string(recorder->end.status.message()), HasSubstr("expert 3 of layer 1"));
}

// It waits for as long as it has to, and is not ended because the first step after that fails as
// well.
TEST_F(SchedulerTest, WaitingForAnExpertIsNotTryingInVain) {
  SchedulerOptions options;
  options.step_retry_timeout = absl::Milliseconds(100);
  options.step_retry_delay = absl::Milliseconds(1);
  Start(options);
  experts_.gone = true;
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({1000}, 5), recorder);
  while (experts_.n_failed < 1) std::this_thread::yield();
  EXPECT_FALSE(recorder->done.WaitForNotificationWithTimeout(2 * options.step_retry_timeout));
  experts_.n_stale = 1;
  experts_.gone = false;
  ASSERT_TRUE(recorder->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(recorder->end.cause, StopCause::kMaxTokens) << recorder->end.status;
  // Nor by what it waited for one that was silent.
  experts_.gone = experts_.silent = true;
  const int n_failed = experts_.n_failed;
  auto silent = std::make_shared<Recorder>();
  auto third = Submit(Request({1000}, 5), silent);
  while (experts_.n_failed == n_failed) std::this_thread::yield();
  EXPECT_FALSE(silent->done.WaitForNotificationWithTimeout(2 * options.step_retry_timeout));
  experts_.n_stale = 1;
  experts_.gone = experts_.silent = false;
  ASSERT_TRUE(silent->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(silent->end.cause, StopCause::kMaxTokens) << silent->end.status;
  // What is there and never works is.
  experts_.n_stale = 1 << 30;
  auto tried = std::make_shared<Recorder>();
  auto second = Submit(Request({1000}, 5), tried);
  ASSERT_TRUE(tried->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(ReasonOf(tried->end.status), kExpertUnavailable);
}

TEST_F(SchedulerTest, WhoWaitsForAnExpertIsInNobodysWay) {
  SchedulerOptions options;
  options.max_running = 1;
  Start(options);
  experts_.gone = true;
  std::vector<std::shared_ptr<Recorder>> waiting;
  std::vector<std::unique_ptr<GenerationService::Handle>> handles;
  const auto submit = [&](int token) {
    auto recorder = std::make_shared<Recorder>();
    handles.push_back(Submit(Request({token}, 5), recorder));
    return recorder;
  };
  const auto await_waiting = [&](int n) {
    while (scheduler_->load().n_waiting_for_expert < n) std::this_thread::yield();
  };
  waiting.push_back(submit(1000));
  await_waiting(1);
  ASSERT_TRUE(submit(10)->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  // As many again, and no more.
  waiting.push_back(submit(1000));
  await_waiting(2);
  auto late = submit(10);
  EXPECT_FALSE(late->done.WaitForNotificationWithTimeout(absl::Milliseconds(100)));
  experts_.gone = false;
  for (const auto& recorder : waiting) {
    ASSERT_TRUE(recorder->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
    EXPECT_EQ(recorder->end.cause, StopCause::kMaxTokens);
  }
  ASSERT_TRUE(late->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
}

TEST_F(SchedulerTest, MayFailAtOnceForWantOfAnExpert) {
  SchedulerOptions options;
  options.fail_on_missing_expert = true;
  Start(options);
  experts_.gone = true;
  auto needs = std::make_shared<Recorder>();
  auto other = std::make_shared<Recorder>();
  auto first = Submit(Request({1000}, 5), needs);
  auto second = Submit(Request({10}, 5), other);
  needs->done.WaitForNotification();
  other->done.WaitForNotification();
  EXPECT_EQ(ReasonOf(needs->end.status), kExpertUnavailable);
  EXPECT_EQ(other->end.cause, StopCause::kMaxTokens);
  // Not for one that is there and only silent.
  experts_.silent = true;
  auto patient = std::make_shared<Recorder>();
  auto third = Submit(Request({1000}, 5), patient);
  while (experts_.n_failed < 2) std::this_thread::yield();
  experts_.gone = false;
  patient->done.WaitForNotification();
  EXPECT_EQ(patient->end.cause, StopCause::kMaxTokens);
}

// A shard died a moment ago: calls to it fail, and it is still said to hold the expert.
TEST_F(SchedulerTest, FailsWhoWaitsForASilentShardOnceItIsGone) {
  SchedulerOptions options;
  options.fail_on_missing_expert = true;
  Start(options);
  experts_.gone = experts_.silent = true;
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({1000}, 5), recorder);
  while (experts_.n_failed < 1) std::this_thread::yield();
  experts_.silent = false;
  ASSERT_TRUE(recorder->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(ReasonOf(recorder->end.status), kExpertUnavailable);
}

TEST_F(SchedulerTest, GoesOnWithoutASilentShardsExpertOnceItIsGone) {
  Start({});
  experts_.gone = experts_.silent = true;
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({1000}, 5), recorder);
  while (experts_.n_failed < 1) std::this_thread::yield();
  experts_.degraded = true;
  experts_.silent = false;
  ASSERT_TRUE(recorder->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(recorder->end.cause, StopCause::kMaxTokens);
  EXPECT_GT(recorder->n_degraded_tokens, 0);
}

TEST_F(SchedulerTest, CountsTokensThatWentWithoutAnExpert) {
  Start({});
  experts_.gone = experts_.degraded = true;
  auto recorder = std::make_shared<Recorder>();
  auto handle = Submit(Request({997, 998}, 4), recorder);
  recorder->done.WaitForNotification();
  EXPECT_THAT(recorder->tokens, ElementsAre(999, 1000, 1001, 1002));
  EXPECT_EQ(recorder->n_degraded_tokens, 2);  // 1000 and 1001; 1002 was never computed
  // Computed twice, counted once.
  auto lost = std::make_shared<Recorder>();
  lost->on_token = [&] {
    if (lost->tokens.size() != 3) return;
    absl::MutexLock lock(&shared_.mu);
    shared_.failures = {absl::AbortedError("killed")};
  };
  auto again = Submit(Request({997, 998}, 4), lost);
  ASSERT_TRUE(lost->done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_THAT(lost->tokens, ElementsAre(999, 1000, 1001, 1002));
  EXPECT_EQ(lost->n_degraded_tokens, 2);
}

TEST_F(SchedulerTest, CancellingFreesTheSequence) {
  Start({});
  auto recorder = std::make_shared<Recorder>();
  absl::Notification two, cancelled;
  recorder->on_token = [&] {
    if (recorder->tokens.size() != 2) return;
    two.Notify();
    cancelled.WaitForNotification();
  };
  auto handle = Submit(Request({10}, 2000), recorder);
  two.WaitForNotification();
  handle.reset();
  cancelled.Notify();
  recorder->done.WaitForNotification();
  EXPECT_EQ(recorder->end.cause, StopCause::kCancelled);
  EXPECT_EQ(recorder->tokens.size(), 2u);
  AwaitIdle();
  EXPECT_EQ(n_held(), 0);
}

TEST_F(SchedulerTest, RefusesBeyondTheQueue) {
  SchedulerOptions options;
  options.max_running = 1;
  options.max_waiting = 1;
  Start(options);
  absl::Notification gate;
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.gate = &gate;
  }
  auto running = std::make_shared<Recorder>();
  auto first = Submit(Request({10}, 2), running);
  while (scheduler_->load().n_running == 0) absl::SleepFor(absl::Milliseconds(1));
  auto waiting = std::make_shared<Recorder>();
  auto second = Submit(Request({20}, 2), waiting);
  auto refused = scheduler_->Submit(Request({30}, 2), std::make_shared<Recorder>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(refused.status()), kQueueFull);
  gate.Notify();
  waiting->done.WaitForNotification();
  EXPECT_THAT(running->tokens, ElementsAre(11, 12));
  EXPECT_THAT(waiting->tokens, ElementsAre(21, 22));
}

TEST_F(SchedulerTest, RefusalsSayThatTheKvCacheIsWhatIsFull) {
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.free_sequences = 0;
  }
  SchedulerOptions options;
  options.max_waiting = 1;
  Start(options);
  std::vector<std::unique_ptr<GenerationService::Handle>> waiting;
  absl::Status refused;
  // A lane may just be trying for who waits, who then is not in the queue.
  while (ReasonOf(refused) != kKvCacheFull) {
    auto submitted = scheduler_->Submit(Request({10}, 2), std::make_shared<Recorder>());
    if (submitted.ok()) waiting.push_back(*std::move(submitted));
    refused = submitted.status();
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(RetryDelayOf(refused), absl::ZeroDuration());
}

TEST_F(SchedulerTest, WaitsForKvBlocksAndHonoursTheDeadlineMeanwhile) {
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.free_sequences = 0;
  }
  Start({});
  auto late = std::make_shared<Recorder>();
  GenerationRequest request = Request({10}, 2);
  request.deadline = absl::Now() + absl::Milliseconds(20);
  auto first = Submit(request, late);
  late->done.WaitForNotification();
  EXPECT_EQ(late->end.status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(late->n_first_steps, 0);
  auto patient = std::make_shared<Recorder>();
  auto second = Submit(Request({10}, 2), patient);
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.free_sequences = 1;
  }
  patient->done.WaitForNotification();
  EXPECT_THAT(patient->tokens, ElementsAre(11, 12));
}

TEST_F(SchedulerTest, BatchesManyAndSpreadsThemOverLanes) {
  SchedulerOptions options;
  options.max_step_tokens = 64;
  Start(options, 3);
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::unique_ptr<GenerationService::Handle>> handles;
  for (int i = 0; i < 24; ++i) {
    recorders.push_back(std::make_shared<Recorder>());
    handles.push_back(Submit(Request({i * 10}, 20), recorders.back()));
  }
  for (int i = 0; i < 24; ++i) {
    recorders[i]->done.WaitForNotification();
    ASSERT_EQ(recorders[i]->tokens.size(), 20u);
    EXPECT_EQ(recorders[i]->tokens.back(), i * 10 + 20);
  }
  absl::MutexLock lock(&shared_.mu);
  EXPECT_LE(shared_.largest_batch, 24);
}

// A lane waits for services, as long as a minute; others must not wait for the lane.
TEST_F(SchedulerTest, ALaneThatHangsKeepsNoOtherFromItsWork) {
  SchedulerOptions options;
  options.longest_step = absl::Milliseconds(20);
  Start(options, 2);
  absl::Notification gate;
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.gate = &gate;
  }
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::unique_ptr<GenerationService::Handle>> handles;
  const auto submit = [&](int n_tokens) {
    recorders.push_back(std::make_shared<Recorder>());
    recorders.back()->on_token = [] { absl::SleepFor(absl::Milliseconds(2)); };
    handles.push_back(Submit(Request({10}, n_tokens), recorders.back()));
    while (scheduler_->load().n_waiting > 0 && recorders.size() < 4) std::this_thread::yield();
  };
  const auto hangs = [&] {
    absl::MutexLock lock(&shared_.mu);
    return shared_.gate == nullptr;
  };
  submit(1);
  while (!hangs()) std::this_thread::yield();
  for (int i = 0; i < 2; ++i) submit(380);
  submit(1);
  recorders[3]->done.WaitForNotification();
  EXPECT_FALSE(recorders[1]->done.HasBeenNotified());
  EXPECT_FALSE(recorders[2]->done.HasBeenNotified());
  EXPECT_FALSE(recorders[0]->done.HasBeenNotified());
  gate.Notify();
  for (const auto& recorder : recorders) recorder->done.WaitForNotification();
}

TEST_F(SchedulerTest, HigherPriorityGoesFirst) {
  SchedulerOptions options;
  options.max_running = 1;
  Start(options);
  absl::Notification gate;
  {
    absl::MutexLock lock(&shared_.mu);
    shared_.gate = &gate;
  }
  std::vector<int> order;
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::unique_ptr<GenerationService::Handle>> handles;
  for (int priority : {0, 1, 5, 1}) {
    auto recorder = std::make_shared<Recorder>();
    recorder->on_token = [&order, i = recorders.size()] { order.push_back(static_cast<int>(i)); };
    GenerationRequest request = Request({10}, 1);
    request.priority = priority;
    handles.push_back(Submit(request, recorder));
    recorders.push_back(recorder);
    if (recorders.size() == 1) {
      while (scheduler_->load().n_running == 0) absl::SleepFor(absl::Milliseconds(1));
    }
  }
  gate.Notify();
  for (const auto& recorder : recorders) recorder->done.WaitForNotification();
  EXPECT_THAT(order, ElementsAre(0, 2, 1, 3));
}

}  // namespace
}  // namespace gatefold

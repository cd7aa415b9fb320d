// More sequences run than there are KV blocks for: somebody gives way, everybody ends with the
// right tokens, and the first in line always goes on.

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gatefold/engine/router_model.h"
#include "gtest/gtest.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {
namespace {

constexpr int kBlock = 16;

// KV blocks of one or more attention-services, counted as those would, and shared by all lanes.
struct Places {
  struct Held {
    int place = 0;
    int n_blocks = 0;
    int n_computed = 0;
    int n_positions = 0;
  };
  absl::Mutex mu;
  std::vector<int> n_free ABSL_GUARDED_BY(mu);
  std::map<SequenceId, Held> held ABSL_GUARDED_BY(mu);
  std::map<SequenceId, int> n_opened ABSL_GUARDED_BY(mu);  // times
};

int BlocksFor(int n_positions) { return (n_positions + kBlock - 1) / kBlock; }

// Every token is the one before plus one.
class FakeAttention final : public AttentionClient {
 public:
  explicit FakeAttention(Places* places) : places_(places) {}

  absl::StatusOr<int> Open(const SequenceSpec& spec) override {
    absl::MutexLock lock(&places_->mu);
    const int n_blocks = BlocksFor(spec.n_reserved);
    EXPECT_LE(spec.n_reserved, spec.n_positions);
    const auto most = std::max_element(places_->n_free.begin(), places_->n_free.end());
    if (*most < n_blocks) return absl::ResourceExhaustedError("no blocks");
    *most -= n_blocks;
    const int place = static_cast<int>(most - places_->n_free.begin());
    EXPECT_TRUE(places_->held.insert({spec.id, {place, n_blocks, 0, spec.n_positions}}).second);
    ++places_->n_opened[spec.id];
    return 0;
  }
  void Close(SequenceId sequence) override {
    absl::MutexLock lock(&places_->mu);
    const auto it = places_->held.find(sequence);
    if (it == places_->held.end()) return;
    places_->n_free[it->second.place] += it->second.n_blocks;
    places_->held.erase(it);
  }
  absl::Status EmbedAndAttend(const Step& step, float*) override {
    absl::MutexLock lock(&places_->mu);
    failed_.clear();
    for (const StepSpan& span : step.spans) {
      Places::Held& held = places_->held.at(span.sequence);
      const int end = span.first_position + span.n_tokens;
      EXPECT_LE(span.first_position, held.n_computed);
      EXPECT_LE(end, held.n_positions);
      const int n_more = BlocksFor(end) - held.n_blocks;
      if (n_more <= 0) continue;
      if (places_->n_free[held.place] < n_more) {
        failed_.push_back({span.sequence, absl::ResourceExhaustedError("no blocks")});
      } else {
        places_->n_free[held.place] -= n_more;
        held.n_blocks += n_more;
      }
    }
    if (!failed_.empty()) return failed_.front().status;
    for (const StepSpan& span : step.spans) {
      places_->held.at(span.sequence).n_computed = span.first_position + span.n_tokens;
    }
    return absl::OkStatus();
  }
  absl::Status Attend(const Step&, int, float*) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<Sampled>> Sample(const Step& step, const float*) override {
    std::vector<Sampled> sampled;
    for (const SampleRequest& sample : step.samples) {
      sampled.emplace_back().token = sample.score ? sample.target : step.token_ids[sample.row] + 1;
    }
    return sampled;
  }
  std::vector<Failed> TakeFailed() override { return std::exchange(failed_, {}); }
  int PlaceOf(SequenceId sequence) const override {
    absl::MutexLock lock(&places_->mu);
    return places_->held.at(sequence).place;
  }

 private:
  Places* const places_;
  std::vector<Failed> failed_;
};

class NoExperts final : public ExpertClient {
 public:
  absl::Status Run(const Step&, int, const float*, const Routes& routes, float*,
                   uint8_t* served_by) override {
    std::fill_n(served_by, routes.experts.size(), 0);
    return absl::OkStatus();
  }
};

class Recorder final : public GenerationListener {
 public:
  void OnPromptScores(int first_position, const std::vector<Sampled>& scores) override {
    EXPECT_EQ(first_position, n_scored);
    n_scored += static_cast<int>(scores.size());
  }
  bool OnToken(const Sampled& token) override {
    if (gate != nullptr) gate->WaitForNotification();
    tokens.push_back(token.token);
    return true;
  }
  void OnEnd(const GenerationEnd& how) override {
    end = how;
    done.Notify();
  }
  const absl::Notification* gate = nullptr;  // its lane stands still until then
  std::vector<int32_t> tokens;
  int n_scored = 0;
  GenerationEnd end;
  absl::Notification done;
};

class Counter final : public SchedulerObserver {
 public:
  void OnStep(const Step&, const StepResult&, absl::Duration) override {}
  void OnStepFailed(const absl::Status&) override { ++n_failed; }
  void OnRecompute(RecomputeReason reason) override {
    if (reason == RecomputeReason::kPreempted) ++n_preempted;
  }
  std::atomic<int> n_failed = 0;
  std::atomic<int> n_preempted = 0;
};

class PreemptionTest : public testing::Test {
 protected:
  void Start(SchedulerOptions options, std::vector<int> blocks, int n_lanes = 1) {
    handles_.clear();
    scheduler_.reset();
    {
      absl::MutexLock lock(&places_.mu);
      places_.n_free = std::move(blocks);
      places_.n_opened.clear();
    }
    std::vector<LaneEngine> engines;
    for (int i = 0; i < n_lanes; ++i) {
      LaneEngine engine;
      engine.attention = std::make_unique<FakeAttention>(&places_);
      engine.experts = std::make_unique<NoExperts>();
      engine.loop =
          std::make_unique<StepLoop>(model_->config(), engine.attention.get(), engine.experts.get(),
                                     MakeHostRows(model_.get(), &threads_, DType::kF32));
      engines.push_back(std::move(engine));
    }
    scheduler_ = *Scheduler::Create(options, std::move(engines), &counter_);
  }

  std::shared_ptr<Recorder> Submit(GenerationRequest request,
                                   const absl::Notification* gate = nullptr) {
    auto recorder = std::make_shared<Recorder>();
    recorder->gate = gate;
    auto handle = scheduler_->Submit(std::move(request), recorder);
    EXPECT_TRUE(handle.ok()) << handle.status();
    handles_.push_back(*std::move(handle));
    return recorder;
  }

  // How often the nth request was given KV blocks; once unless it lost them.
  int n_opened(SequenceId nth) {
    absl::MutexLock lock(&places_.mu);
    return places_.n_opened[nth];
  }

  static GenerationRequest Request(int first_token, int n_prompt, int n_output) {
    GenerationRequest request;
    for (int i = 0; i < n_prompt; ++i) request.prompt.push_back(first_token + i);
    request.max_output_tokens = n_output;
    return request;
  }

  static void ExpectAllTokens(Recorder* recorder, int first_token, int n_prompt, int n_output) {
    recorder->done.WaitForNotification();
    ASSERT_EQ(static_cast<int>(recorder->tokens.size()), n_output) << recorder->end.status;
    for (int i = 0; i < n_output; ++i) {
      ASSERT_EQ(recorder->tokens[i], first_token + n_prompt + i);
    }
  }

  std::unique_ptr<ModelWeights> weights_ = *ModelWeights::Open("tests/golden/llama/f32");
  std::unique_ptr<RouterModel> model_ = *RouterModel::Load(*weights_);
  ThreadPool threads_{1, absl::ZeroDuration()};
  Places places_;
  Counter counter_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::unique_ptr<GenerationService::Handle>> handles_;  // go before the scheduler
};

TEST_F(PreemptionTest, TheLastInLineGivesWayAndEndsWithTheSameTokens) {
  SchedulerOptions options;
  options.headroom_tokens = 1;
  Start(options, {10});
  std::vector<std::shared_ptr<Recorder>> recorders;
  absl::Notification all_there;
  for (int i = 0; i < 4; ++i) recorders.push_back(Submit(Request(1000 * i, 10, 90), &all_there));
  all_there.Notify();
  for (int i = 0; i < 4; ++i) ExpectAllTokens(recorders[i].get(), 1000 * i, 10, 90);
  EXPECT_GT(counter_.n_preempted, 0);
  EXPECT_EQ(counter_.n_failed, 0);  // it is no failure
  EXPECT_EQ(n_opened(1), 1);
}

TEST_F(PreemptionTest, WhoCameFirstIsNeverPreempted) {
  SchedulerOptions options;
  options.headroom_tokens = 1;
  Start(options, {8});
  auto first = Submit(Request(0, 4, 120));
  std::vector<std::shared_ptr<Recorder>> others;
  for (int i = 1; i < 6; ++i) others.push_back(Submit(Request(1000 * i, 4, 60)));
  ExpectAllTokens(first.get(), 0, 4, 120);
  EXPECT_EQ(n_opened(1), 1);
  for (int i = 1; i < 6; ++i) ExpectAllTokens(others[i - 1].get(), 1000 * i, 4, 60);
}

TEST_F(PreemptionTest, TwoThatNeedAllBlocksEachAreComputedAgainOnceAtMost) {
  SchedulerOptions options;
  options.headroom_tokens = 1;
  for (int n_lanes : {1, 2}) {
    Start(options, {8}, n_lanes);
    auto first = Submit(Request(0, 16, 112));
    auto second = Submit(Request(1000, 16, 112));
    ExpectAllTokens(first.get(), 0, 16, 112);
    ExpectAllTokens(second.get(), 1000, 16, 112);
    EXPECT_LE(n_opened(1), 2);
    EXPECT_LE(n_opened(2), 2);
  }
}

TEST_F(PreemptionTest, TellsPromptScoresOnce) {
  SchedulerOptions options;
  options.headroom_tokens = 1;
  Start(options, {6});
  absl::Notification all_there;
  std::vector<std::shared_ptr<Recorder>> recorders;
  for (int i = 0; i < 3; ++i) {
    GenerationRequest request = Request(1000 * i, 30, 40);
    request.score_prompt = true;
    recorders.push_back(Submit(request, &all_there));
  }
  all_there.Notify();
  for (int i = 0; i < 3; ++i) {
    ExpectAllTokens(recorders[i].get(), 1000 * i, 30, 40);
    EXPECT_EQ(recorders[i]->n_scored, 29);
  }
  EXPECT_GT(counter_.n_preempted, 0);
}

TEST_F(PreemptionTest, HigherPriorityKeepsItsBlocks) {
  SchedulerOptions options;
  options.headroom_tokens = 1;
  Start(options, {8});
  auto low = Submit(Request(0, 16, 100));
  GenerationRequest request = Request(1000, 16, 100);
  request.priority = 5;
  auto high = Submit(request);
  ExpectAllTokens(high.get(), 1000, 16, 100);
  EXPECT_EQ(n_opened(2), 1);
  ExpectAllTokens(low.get(), 0, 16, 100);
}

// Tiny pools, one or two services, one to three lanes, requests of all sizes up to all that a
// service holds. All of them end, with the right tokens, and all blocks come back.
TEST_F(PreemptionTest, EverybodyEndsWithTheRightTokensWhateverTheyNeed) {
  for (int seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int n_blocks = 2 + static_cast<int>(random() % 10);
    std::vector<int> places(1 + random() % 2, n_blocks);
    const int n_all = n_blocks * static_cast<int>(places.size());
    SchedulerOptions options;
    options.max_step_tokens = 1 + static_cast<int>(random() % 40);
    options.max_running = 1 + static_cast<int>(random() % 12);
    options.headroom_tokens = 1 + static_cast<int>(random() % 20);
    Start(options, places, 1 + static_cast<int>(random() % 3));
    struct Asked {
      std::shared_ptr<Recorder> recorder;
      int n_prompt, n_output;
    };
    std::vector<Asked> asked;
    for (int i = 0; i < 20; ++i) {
      const int n_most = n_blocks * kBlock;
      const int n_prompt = 1 + static_cast<int>(random() % (n_most - 1));
      const int n_output = 1 + static_cast<int>(random() % (n_most - n_prompt));
      GenerationRequest request = Request(10000 * i, n_prompt, n_output);
      request.priority = static_cast<int>(random() % 3);
      asked.push_back({Submit(request), n_prompt, n_output});
    }
    for (int i = 0; i < 20; ++i) {
      ExpectAllTokens(asked[i].recorder.get(), 10000 * i, asked[i].n_prompt, asked[i].n_output);
    }
    while (scheduler_->load().n_running > 0) absl::SleepFor(absl::Milliseconds(1));
    handles_.clear();
    scheduler_.reset();
    absl::MutexLock lock(&places_.mu);
    EXPECT_EQ(std::accumulate(places_.n_free.begin(), places_.n_free.end(), 0), n_all);
    EXPECT_TRUE(places_.held.empty());
  }
  EXPECT_GT(counter_.n_preempted, 0);
}

}  // namespace
}  // namespace gatefold

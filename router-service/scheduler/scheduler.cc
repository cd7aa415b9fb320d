#include "router-service/scheduler/scheduler.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/errors.h"
#include "router-service/scheduler/lane.h"
#include "router-service/scheduler/sequence.h"

namespace gatefold {
namespace {

// Keeps its sequence alive and cancels it when the gateway lets go.
class SequenceHandle final : public GenerationService::Handle {
 public:
  SequenceHandle(std::shared_ptr<Sequence> sequence, std::function<void()> notify)
      : sequence_(std::move(sequence)), notify_(std::move(notify)) {}
  ~SequenceHandle() override {
    sequence_->Cancel();
    notify_();
  }

 private:
  const std::shared_ptr<Sequence> sequence_;
  const std::function<void()> notify_;
};

}  // namespace

absl::Status SchedulerOptions::Validate() const {
  const std::pair<const char*, int> positive[] = {{"max_step_tokens", max_step_tokens},
                                                  {"max_running", max_running},
                                                  {"max_waiting", max_waiting},
                                                  {"headroom_tokens", headroom_tokens},
                                                  {"max_sequence_tokens", max_sequence_tokens}};
  for (const auto& [name, value] : positive) {
    if (value < 1) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, ", must be at least 1"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Create(const SchedulerOptions& options,
                                                             std::vector<LaneEngine> engines,
                                                             SchedulerObserver* observer) {
  if (absl::Status valid = options.Validate(); !valid.ok()) return valid;
  GF_CHECK(!engines.empty());
  std::unique_ptr<Scheduler> scheduler(new Scheduler(options, observer));
  {
    absl::MutexLock lock(&scheduler->mu_);
    scheduler->n_running_.resize(engines.size());
    scheduler->n_waiting_for_expert_.resize(engines.size());
    scheduler->at_work_since_.resize(engines.size(), absl::InfiniteFuture());
  }
  for (size_t i = 0; i < engines.size(); ++i) {
    scheduler->lanes_.push_back(
        std::make_unique<Lane>(static_cast<int>(i), scheduler.get(), std::move(engines[i])));
  }
  for (const auto& lane : scheduler->lanes_) lane->Start();
  return scheduler;
}

Scheduler::Scheduler(const SchedulerOptions& options, SchedulerObserver* observer)
    : options_(options), observer_(observer) {}

Scheduler::~Scheduler() { Stop(); }

void Scheduler::Stop() {
  std::deque<std::shared_ptr<Sequence>> waiting;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    ++news_;
  }
  for (const auto& lane : lanes_) lane->Join();
  {
    absl::MutexLock lock(&mu_);
    waiting.swap(waiting_);
  }
  for (const auto& sequence : waiting) {
    sequence->End(StopCause::kError, DrainLimitPassed());
  }
}

absl::StatusOr<std::unique_ptr<GenerationService::Handle>> Scheduler::Submit(
    GenerationRequest request, std::shared_ptr<GenerationListener> listener) {
  GF_CHECK(!request.prompt.empty());
  absl::MutexLock lock(&mu_);
  if (stopping_) return Draining(absl::Seconds(1));
  if (static_cast<int>(waiting_.size()) >= options_.max_waiting) {
    const bool for_kv_blocks =
        std::any_of(waiting_.begin(), waiting_.end(),
                    [id = kv_blocks_wanted_by_](const auto& one) { return one->id() == id; });
    return for_kv_blocks ? KvCacheFull(absl::Seconds(1)) : QueueFull(absl::Seconds(1));
  }
  auto sequence = std::make_shared<Sequence>(next_id_++, std::move(request), std::move(listener),
                                             options_.max_sequence_tokens, absl::Now());
  Insert(sequence);
  ++news_;
  return std::make_unique<SequenceHandle>(std::move(sequence), [this] { Notify(); });
}

GenerationService::Load Scheduler::load() const {
  absl::MutexLock lock(&mu_);
  return {std::accumulate(n_running_.begin(), n_running_.end(), 0),
          static_cast<int>(waiting_.size()),
          std::accumulate(n_waiting_for_expert_.begin(), n_waiting_for_expert_.end(), 0)};
}

std::shared_ptr<Sequence> Scheduler::Take(int lane) {
  absl::MutexLock lock(&mu_);
  if (stopping_ || waiting_.empty()) return nullptr;
  // Who waits for an expert is in nobody's way, but is not unbounded either.
  const int n_running = std::accumulate(n_running_.begin(), n_running_.end(), 0);
  const int n_held = std::accumulate(n_waiting_for_expert_.begin(), n_waiting_for_expert_.end(), 0);
  if (n_running - std::min(n_held, options_.max_running) >= options_.max_running) return nullptr;
  // The emptiest lane takes it, of those that will be back soon; an idle one has been woken by the
  // submission.
  const absl::Time hangs = absl::Now() - options_.longest_step;
  for (size_t other = 0; other < n_running_.size(); ++other) {
    if (n_running_[lane] > n_running_[other] && at_work_since_[other] > hangs) return nullptr;
  }
  std::shared_ptr<Sequence> sequence = std::move(waiting_.front());
  waiting_.pop_front();
  ++n_running_[lane];
  return sequence;
}

void Scheduler::PutBack(int lane, std::shared_ptr<Sequence> sequence, bool found_no_kv_blocks) {
  absl::MutexLock lock(&mu_);
  --n_running_[lane];
  if (found_no_kv_blocks) kv_blocks_wanted_by_ = sequence->id();
  Insert(std::move(sequence));
  ++news_;  // another lane may be the one to take it now
}

void Scheduler::Insert(std::shared_ptr<Sequence> sequence) {
  const auto later = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const auto& other) { return sequence->Before(*other); });
  waiting_.insert(later, std::move(sequence));
}

void Scheduler::Release(int lane, int n_ended) {
  absl::MutexLock lock(&mu_);
  n_running_[lane] -= n_ended;
  ++news_;
}

void Scheduler::SetWaitingForExpert(int lane, int n) {
  absl::MutexLock lock(&mu_);
  n_waiting_for_expert_[lane] = n;
  ++news_;  // others may run instead
}

void Scheduler::SweepWaiting() {
  std::vector<std::shared_ptr<Sequence>> due;
  const absl::Time now = absl::Now();
  {
    absl::MutexLock lock(&mu_);
    std::erase_if(waiting_, [&](const std::shared_ptr<Sequence>& sequence) {
      const bool ends = sequence->cancelled() || now >= sequence->deadline();
      if (ends) due.push_back(sequence);
      return ends;
    });
  }
  for (const auto& sequence : due) sequence->EndIfDue(now);
}

uint64_t Scheduler::BeginWork(int lane) {
  absl::MutexLock lock(&mu_);
  at_work_since_[lane] = absl::Now();
  return news_;
}

void Scheduler::AwaitNews(int lane, uint64_t seen, absl::Time until) {
  absl::MutexLock lock(&mu_);
  at_work_since_[lane] = absl::InfiniteFuture();
  for (const auto& sequence : waiting_) until = std::min(until, sequence->deadline());
  const auto news = [this, seen]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return news_ != seen; };
  mu_.AwaitWithDeadline(absl::Condition(&news), until);
}

bool Scheduler::stopping() const {
  absl::MutexLock lock(&mu_);
  return stopping_;
}

void Scheduler::Notify() {
  absl::MutexLock lock(&mu_);
  ++news_;
}

}  // namespace gatefold

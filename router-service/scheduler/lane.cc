#include "router-service/scheduler/lane.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

Lane::Lane(int index, Scheduler* scheduler, LaneEngine engine)
    : index_(index), scheduler_(scheduler), engine_(std::move(engine)) {}

void Lane::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Lane::Run() {
  while (!scheduler_->stopping()) {
    const uint64_t seen = scheduler_->news();
    SweepRunning();
    Admit();
    Step step = Next();
    if (step.n_rows() == 0) {
      engine_.attention->Flush();
      // Without KV blocks it is another lane or router that must free some: look again soon.
      scheduler_->AwaitNews(
          seen, kv_full_ ? absl::Now() + absl::Milliseconds(5) : absl::InfiniteFuture());
      continue;
    }
    const absl::Time start = absl::Now();
    absl::StatusOr<StepResult> result = engine_.loop->Run(step);
    if (result.ok()) {
      Commit(*result);
      if (scheduler_->observer_ != nullptr) {
        scheduler_->observer_->OnStep(step, *result, absl::Now() - start);
      }
    } else {
      Fail(result.status());
    }
  }
  for (const auto& sequence : running_) {
    sequence->End(StopCause::kError, absl::UnavailableError("the router is stopping"));
  }
  DropEnded();
}

void Lane::SweepRunning() {
  const absl::Time now = absl::Now();
  for (const auto& sequence : running_) sequence->EndIfDue(now);
  DropEnded();
  scheduler_->SweepWaiting();
}

void Lane::Admit() {
  kv_full_ = false;
  while (std::shared_ptr<Sequence> sequence = scheduler_->Take(index_)) {
    sequence->EndIfDue(absl::Now());  // resumed at its very end, for one
    if (sequence->ended()) {
      scheduler_->Release(index_, 1);
      continue;
    }
    const absl::Status opened = engine_.attention->Open(sequence->Spec());
    if (opened.ok()) {
      running_.push_back(std::move(sequence));
    } else if (absl::IsResourceExhausted(opened) || absl::IsUnavailable(opened)) {
      kv_full_ = true;
      scheduler_->PutBack(index_, std::move(sequence));
      return;
    } else {
      sequence->End(StopCause::kError, opened);
      scheduler_->Release(index_, 1);
    }
  }
}

Step Lane::Next() {
  Step step;
  step.lane = index_;
  step.id = next_step_++;
  shares_.clear();
  const absl::Time now = absl::Now();
  int budget = scheduler_->options_.max_step_tokens;
  for (const bool decode : {true, false}) {
    for (const auto& sequence : running_) {
      if (budget == 0) break;
      if ((sequence->n_pending() == 1) != decode) continue;
      shares_.push_back(sequence->AddTo(budget, now, &step));
      budget -= shares_.back().span.n_tokens;
    }
  }
  return step;
}

void Lane::Commit(const StepResult& result) {
  const absl::Time now = absl::Now();
  for (const Sequence::Share& share : shares_) share.sequence->Commit(share, result, now);
  DropEnded();
}

void Lane::Fail(const absl::Status& status) {
  if (scheduler_->observer_ != nullptr) scheduler_->observer_->OnStepFailed(status);
  LogEvent(LogLevel::kWarning, "step_failed",
           {{"lane", index_}, {"step", next_step_ - 1}, {"error", status.ToString()}});
  const absl::Time now = absl::Now();
  const bool kv_lost = absl::IsAborted(status);
  const bool transient = kv_lost || absl::IsUnavailable(status);
  for (const Sequence::Share& share : shares_) {
    Sequence* sequence = share.sequence;
    sequence->failing_since = std::min(sequence->failing_since, now);
    if (!transient || now - sequence->failing_since >= scheduler_->options_.step_retry_timeout) {
      sequence->End(StopCause::kError, kv_lost ? absl::UnavailableError(status.message()) : status);
    } else if (kv_lost) {
      engine_.attention->Close(sequence->id());
      sequence->ForgetComputed();
      const absl::Status opened = engine_.attention->Open(sequence->Spec());
      if (!opened.ok() && !absl::IsUnavailable(opened)) sequence->End(StopCause::kError, opened);
    }
  }
  DropEnded();
  if (!running_.empty()) {
    scheduler_->AwaitNews(scheduler_->news(), now + scheduler_->options_.step_retry_delay);
  }
}

void Lane::DropEnded() {
  const auto ended = [this](const std::shared_ptr<Sequence>& sequence) {
    if (sequence->ended()) engine_.attention->Close(sequence->id());
    return sequence->ended();
  };
  const int dropped = static_cast<int>(std::erase_if(running_, ended));
  if (dropped > 0) scheduler_->Release(index_, dropped);
}

}  // namespace gatefold

#include "router-service/scheduler/lane.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

constexpr absl::Duration kReportInterval = absl::Seconds(5);

// What a share's rows lack; null: nothing. `missing` is in ascending rows.
const MissingExpert* FindMissing(const std::vector<MissingExpert>& missing,
                                 const Sequence::Share& share) {
  const auto found = std::lower_bound(
      missing.begin(), missing.end(), share.first_row,
      [](const MissingExpert& each, int row) { return each.row < row; });
  const int end = share.first_row + share.span.n_tokens;
  return found != missing.end() && found->row < end ? &*found : nullptr;
}

}  // namespace

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
      // Without KV blocks it is another lane or router that must free some, and an expert comes back
      // unannounced: look again soon.
      scheduler_->AwaitNews(seen, kv_full_ || held_ ? absl::Now() + absl::Milliseconds(5)
                                                    : absl::InfiniteFuture());
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
  ReportWaits(now);
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
  held_ = false;
  for (const bool decode : {true, false}) {
    for (const auto& sequence : running_) {
      if (budget == 0) break;
      if ((sequence->n_pending() == 1) != decode) continue;
      if (Held(*sequence, now)) {
        held_ = true;
        continue;
      }
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
           {{"lane", index_},
            {"step", next_step_ - 1},
            {"code", absl::StatusCodeToString(status.code())},
            {"error", status.message()}});
  const absl::Time now = absl::Now();
  const SchedulerOptions& options = scheduler_->options_;
  const bool kv_lost = absl::IsAborted(status);
  const bool transient = kv_lost || absl::IsUnavailable(status);
  std::vector<MissingExpert> missing;
  if (ReasonOf(status) == kExpertUnavailable) missing = engine_.experts->missing();
  for (const Sequence::Share& share : shares_) {
    Sequence* sequence = share.sequence;
    const MissingExpert* lacks = FindMissing(missing, share);
    if (!missing.empty() && lacks == nullptr) continue;  // it goes on without the others
    Sequence::Hold& hold = sequence->hold;
    hold.since = std::min(hold.since, now);
    hold.retry_at = now + options.step_retry_delay;
    hold.why = lacks != nullptr ? lacks->why : status;
    hold.layer = lacks != nullptr ? lacks->layer : -1;
    hold.expert = lacks != nullptr ? lacks->expert : -1;
    if (!transient || now - hold.since >= options.step_retry_timeout ||
        (lacks != nullptr && !lacks->held && options.fail_on_missing_expert)) {
      sequence->EndHeld(now);
    } else if (kv_lost) {
      engine_.attention->Close(sequence->id());
      sequence->ForgetComputed();
      const absl::Status opened = engine_.attention->Open(sequence->Spec());
      if (!opened.ok() && !absl::IsUnavailable(opened)) sequence->End(StopCause::kError, opened);
    }
  }
  DropEnded();
}

bool Lane::Held(const Sequence& sequence, absl::Time now) const {
  const Sequence::Hold& hold = sequence.hold;
  return now < hold.retry_at ||
         (hold.expert >= 0 && !engine_.experts->Holds(hold.layer, hold.expert));
}

void Lane::ReportWaits(absl::Time now) {
  int n = 0;
  const Sequence* oldest = nullptr;
  for (const auto& sequence : running_) {
    if (sequence->hold.expert < 0) continue;
    ++n;
    if (oldest == nullptr || sequence->hold.since < oldest->hold.since) oldest = sequence.get();
  }
  if (n != n_waiting_for_expert_) scheduler_->SetWaitingForExpert(index_, n);
  if (n == 0 && n_waiting_for_expert_ > 0) {
    LogEvent(LogLevel::kInfo, "expert_wait_over", {{"lane", index_}});
    next_report_ = absl::InfinitePast();
  }
  n_waiting_for_expert_ = n;
  if (n == 0 || now < next_report_) return;
  next_report_ = now + kReportInterval;
  const Sequence::Hold& hold = oldest->hold;
  LogEvent(LogLevel::kWarning, "waiting_for_expert",
           {{"lane", index_},
            {"requests", n},
            {"layer", hold.layer},
            {"expert", hold.expert},
            {"request_id", oldest->request_id()},
            {"since_seconds", absl::ToDoubleSeconds(now - hold.since)},
            {"reason", hold.why.message()}});
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

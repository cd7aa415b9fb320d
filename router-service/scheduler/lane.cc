#include "router-service/scheduler/lane.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

constexpr absl::Duration kAdmissionRetryDelay = absl::Milliseconds(5);
// Who waits for attention is tried far more often, so after such a pause nobody has waited.
constexpr absl::Duration kLossForgotten = absl::Seconds(1);

// What a share's rows lack, each expert once, those that nobody holds first. `missing` is in
// ascending rows and of one layer.
std::vector<MissingExpert> MissingOf(const Sequence::Share& share,
                                     const std::vector<MissingExpert>& missing) {
  std::vector<MissingExpert> lacks;
  std::set<int> experts;
  const int end = share.first_row + share.span.n_tokens;
  const auto before = [](const MissingExpert& each, int row) { return each.row < row; };
  auto it = std::lower_bound(missing.begin(), missing.end(), share.first_row, before);
  for (; it != missing.end() && it->row < end; ++it) {
    if (experts.insert(it->expert).second) lacks.push_back(*it);
  }
  std::stable_partition(lacks.begin(), lacks.end(), [](const auto& each) { return !each.held; });
  return lacks;
}

}  // namespace

Lane::Lane(int index, Scheduler* scheduler, LaneEngine engine)
    : index_(index), scheduler_(scheduler), engine_(std::move(engine)), log_(index) {}

void Lane::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Lane::Run() {
  for (;;) {
    // Before anything is looked at: what changes from here on is news.
    const uint64_t seen = scheduler_->BeginWork(index_);
    if (scheduler_->stopping()) break;
    SweepRunning();
    Admit();
    Step step = Next();
    if (step.n_rows() == 0) {
      starving_ = false;
      engine_.attention->Flush();
      // Without KV blocks it is another lane or router that must free some, and an expert comes
      // back unannounced: look again soon.
      const bool look_again = held_ || next_admission_ > absl::InfinitePast();
      scheduler_->AwaitNews(
          index_, seen, look_again ? absl::Now() + kAdmissionRetryDelay : absl::InfiniteFuture());
      continue;
    }
    const absl::Time start = absl::Now();
    absl::StatusOr<StepResult> result = engine_.loop->Run(step);
    if (result.ok()) {
      Commit(*result);
      const absl::Duration time = absl::Now() - start;
      log_.StepDone(step, *result, time);
      if (scheduler_->observer_ != nullptr) scheduler_->observer_->OnStep(step, *result, time);
    } else {
      Fail(result.status());
    }
  }
  for (const auto& sequence : running_) {
    sequence->End(StopCause::kError, DrainLimitPassed());
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
  // KV blocks that somebody gave up are for the one that lacked them, not for the one that gave
  // them up and is first in the queue now.
  if (starving_ && !running_.empty()) return;
  if (absl::Now() < next_admission_) return;
  next_admission_ = absl::InfinitePast();
  while (std::shared_ptr<Sequence> sequence = scheduler_->Take(index_)) {
    sequence->EndIfDue(absl::Now());  // resumed at its very end, for one
    if (sequence->ended()) {
      scheduler_->Release(index_, 1);
      continue;
    }
    const absl::Time tried = absl::Now();
    const absl::Status opened = Open(sequence.get());
    const bool wait = absl::IsUnavailable(opened) ? AwaitAttention(opened, tried)
                                                  : absl::IsResourceExhausted(opened);
    if (opened.ok()) {
      const auto later = [&](const auto& other) { return sequence->Before(*other); };
      running_.insert(std::find_if(running_.begin(), running_.end(), later), sequence);
    } else if (wait) {
      next_admission_ = absl::Now() + kAdmissionRetryDelay;
      scheduler_->PutBack(index_, std::move(sequence), absl::IsResourceExhausted(opened));
      return;
    } else {
      sequence->End(StopCause::kError, opened);
      scheduler_->Release(index_, 1);
    }
  }
}

bool Lane::AwaitAttention(const absl::Status& why, absl::Time tried) {
  const absl::Time now = absl::Now();
  // Whoever wanted it then has left or is with another lane: it may have been there in between.
  if (tried - attention_missed_ > kLossForgotten) attention_lost_ = absl::InfiniteFuture();
  attention_missed_ = now;
  if (attention_lost_ > now) {
    attention_lost_ = now;
    log_.WaitsForAttention(why);
  }
  return now - attention_lost_ < scheduler_->options_.step_retry_timeout;
}

absl::Status Lane::Open(Sequence* sequence) {
  SequenceSpec spec = sequence->Spec(scheduler_->options_.headroom_tokens);
  GF_ASSIGN_OR_RETURN(const int n_cached, engine_.attention->Open(spec));
  attention_lost_ = absl::InfiniteFuture();
  sequence->Opened(n_cached);
  return absl::OkStatus();
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
      if (Held(sequence.get(), now)) {
        held_ = true;
        continue;
      }
      shares_.push_back(sequence->AddTo(budget, &step));
      budget -= shares_.back().span.n_tokens;
    }
  }
  return step;
}

void Lane::Commit(const StepResult& result) {
  starving_ = false;
  for (const Sequence::Share& share : shares_) share.sequence->Commit(share, result);
  DropEnded();
}

void Lane::Fail(const absl::Status& status) {
  const absl::Time now = absl::Now();
  std::map<SequenceId, absl::Status> failed;
  for (AttentionClient::Failed& one : engine_.attention->TakeFailed()) {
    const auto its_own = [&one](const auto& share) { return share.span.sequence == one.sequence; };
    if (std::any_of(shares_.begin(), shares_.end(), its_own)) {
      failed[one.sequence] = std::move(one.status);
    }
  }
  std::vector<MissingExpert> missing;
  if (ReasonOf(status) == kExpertUnavailable) missing = engine_.experts->missing();
  std::vector<const Sequence*> starved;
  int n_failed = 0;
  for (const Sequence::Share& share : shares_) {
    // A failure that names some leaves the others as they were: they run the step again.
    const auto its_own = failed.find(share.sequence->id());
    if (!failed.empty() && its_own == failed.end()) continue;
    std::vector<MissingExpert> lacks = MissingOf(share, missing);
    if (!missing.empty() && lacks.empty()) continue;
    if (its_own != failed.end() && absl::IsResourceExhausted(its_own->second)) {
      starved.push_back(share.sequence);
      continue;
    }
    ++n_failed;
    FailSequence(share.sequence, its_own != failed.end() ? its_own->second : status,
                 std::move(lacks), now);
  }
  Preempt(starved);  // after the others, whose KV blocks may be what was wanting
  if (n_failed > 0) {
    if (scheduler_->observer_ != nullptr) scheduler_->observer_->OnStepFailed(status);
    log_.StepFailed(next_step_ - 1, status, n_failed, now);
  }
  DropParked();
  DropEnded();
}

bool Lane::Held(Sequence* sequence, absl::Time now) const {
  Sequence::Hold& hold = sequence->hold;
  if (now < hold.retry_at) return true;
  const auto as_it_was = [this](const MissingExpert& lacks) {
    const ExpertState state = engine_.experts->StateOf(lacks.layer, lacks.expert);
    if (state == ExpertState::kLive) return false;
    // Silent then and given up since: what becomes of its rows now is for the policy to say.
    return !(lacks.held && state == ExpertState::kNotHeld);
  };
  if (!hold.lacks.empty() && std::all_of(hold.lacks.begin(), hold.lacks.end(), as_it_was)) {
    sequence->Wait(now);
    return true;
  }
  if (hold.waits_since < now) hold.tried_since += now - hold.waits_since;
  hold.waits_since = absl::InfiniteFuture();
  return false;
}

void Lane::ReportWaits(absl::Time now) {
  int n = 0;
  const Sequence* oldest = nullptr;
  for (const auto& sequence : running_) {
    if (sequence->hold.lacks.empty()) continue;
    ++n;
    if (oldest == nullptr || sequence->hold.since < oldest->hold.since) oldest = sequence.get();
  }
  if (n != n_waiting_for_expert_) scheduler_->SetWaitingForExpert(index_, n);
  n_waiting_for_expert_ = n;
  log_.WaitsForExpert(n, oldest, now);
}

void Lane::FailSequence(Sequence* sequence, const absl::Status& status,
                        std::vector<MissingExpert> lacks, absl::Time now) {
  const SchedulerOptions& options = scheduler_->options_;
  const bool kv_lost = absl::IsAborted(status);
  Sequence::Hold& hold = sequence->hold;
  // What lost its keys and values can go on elsewhere at once, if that is the first time.
  const bool hurry = kv_lost && hold.since > now;
  hold.since = std::min(hold.since, now);
  hold.tried_since = std::min(hold.tried_since, now);
  hold.retry_at = hurry ? now : now + options.step_retry_delay;
  hold.why = lacks.empty() ? status : lacks.front().why;
  hold.lacks = std::move(lacks);
  if ((!kv_lost && !absl::IsUnavailable(status)) ||
      sequence->FailsTooLong(now, options.step_retry_timeout) ||
      (options.fail_on_missing_expert && !hold.lacks.empty() && !hold.lacks.front().held)) {
    sequence->EndHeld(now);
  } else if (kv_lost) {
    Recompute(sequence);
  }
}

void Lane::Recompute(Sequence* sequence) {
  engine_.attention->Close(sequence->id());
  sequence->ForgetComputed();
  const absl::Status opened = Open(sequence);
  if (opened.ok()) {
    if (scheduler_->observer_ != nullptr) {
      scheduler_->observer_->OnRecompute(RecomputeReason::kMoved);
    }
  } else if (absl::IsUnavailable(opened) || absl::IsResourceExhausted(opened)) {
    Park(sequence, RecomputeReason::kMoved);
  } else {
    sequence->End(StopCause::kError, opened);
  }
}

void Lane::Preempt(const std::vector<const Sequence*>& starved) {
  std::set<int> places;
  for (const Sequence* sequence : starved) {
    if (Parked(sequence) || sequence->ended()) continue;
    const int place = engine_.attention->PlaceOf(sequence->id());
    if (places.insert(place).second) PreemptLastAt(place);
  }
}

void Lane::PreemptLastAt(int place) {
  starving_ = true;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    Sequence* last = it->get();
    if (last->ended() || Parked(last)) continue;
    if (engine_.attention->PlaceOf(last->id()) != place) continue;
    engine_.attention->Close(last->id());
    last->ForgetComputed();
    last->ReserveAll();
    LogEvent(LogLevel::kInfo, "sequence_preempted",
             {{"request_id", last->request_id()}, {"lane", index_}});
    return Park(last, RecomputeReason::kPreempted);
  }
}

void Lane::Park(Sequence* sequence, RecomputeReason reason) {
  parked_.push_back(sequence);
  sequence->Wait(absl::Now());
  if (scheduler_->observer_ != nullptr) scheduler_->observer_->OnRecompute(reason);
}

bool Lane::Parked(const Sequence* sequence) const {
  return std::find(parked_.begin(), parked_.end(), sequence) != parked_.end();
}

void Lane::DropParked() {
  for (auto& sequence : running_) {
    if (!Parked(sequence.get())) continue;
    scheduler_->PutBack(index_, std::move(sequence), /*found_no_kv_blocks=*/false);
  }
  std::erase(running_, nullptr);
  parked_.clear();
}

void Lane::DropEnded() {
  const auto ended = [this](const std::shared_ptr<Sequence>& sequence) {
    if (sequence->ended()) engine_.attention->Close(sequence->id());
    return sequence->ended();
  };
  const int dropped = static_cast<int>(std::erase_if(running_, ended));
  if (dropped == 0) return;
  scheduler_->Release(index_, dropped);
  next_admission_ = absl::InfinitePast();
}

}  // namespace gatefold

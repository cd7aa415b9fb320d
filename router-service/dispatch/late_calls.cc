// Of RemoteExpertClient: calls that take too long, and calls that only compare or try.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/log.h"
#include "router-service/dispatch/remote_expert_client.h"

namespace gatefold {
namespace {

// A call is late, and an answer slow, after so many times what a replica usually takes.
constexpr double kLateFactor = 2;
// What stands for that while it is not known: so many times the floor.
constexpr double kUnknownFactor = 20;
// A call is given up after so many times what its own shard usually takes.
constexpr double kSilentFactor = 20;
// Other rows wait for it so many times what it usually takes.
constexpr double kPatienceFactor = 8;
// While a call is late: whether a replica has come, or the shard has gone.
constexpr absl::Duration kLookAgain = absl::Milliseconds(5);

// Whether the shard that got the call may still answer it.
bool Lives(const RoutingTable& table, const ExpertCall& call) {
  const WorkerEntry& shard = table.experts[call.shard];
  return (shard.state == WorkerEntry::State::kReady ||
          shard.state == WorkerEntry::State::kDraining) &&
         shard.worker.incarnation() == call.key.incarnation();
}

}  // namespace

void RemoteExpertClient::Look(ExpertBatch* batch) {
  batch->table = directory_->Table();
  batch->now = absl::Now();
  batch->next_look = absl::InfiniteFuture();
  const std::vector<uint64_t> tokens = batch->tokens;  // hedges add to them
  ExpertBatch::Slots awaited_in_vain;
  for (uint64_t token : tokens) {
    const auto found = calls_.find(token);
    if (found == calls_.end()) continue;
    ExpertCall& call = found->second;
    const absl::Time late_at = LateAt(*batch, call);
    batch->next_look = std::min(batch->next_look, std::max(late_at, batch->now + kLookAgain));
    if (batch->now < late_at) continue;
    if (!Lives(*batch->table, call) || batch->now >= SilentAt(call)) {
      GiveUp(batch, call.shard);
      continue;
    }
    if (!call.suspected) {
      call.suspected = true;
      call.to_hedge = call.slots;
      for (size_t slot : call.slots) batch->late.insert({slot, call.shard});
      directory_->SuspectExpert(call.shard);
      pace_.Strike(call.shard, batch->now);  // whether there is a budget for a hedge or not
    }
    if (options_.hedge.enabled && !call.to_hedge.empty()) Hedge(batch, token);
    const ExpertCall& late = calls_.at(token);  // hedges may have moved it
    if (batch->now < PatientUntil(late)) continue;
    const size_t n_before = awaited_in_vain.size();
    for (size_t slot : late.to_hedge) {
      const bool replica = batch->Choose(slot, pace_, ExpertCall::Purpose::kHedge, late.shard) >= 0;
      if (!batch->answered(slot) && !replica) awaited_in_vain.push_back(slot);
    }
    if (awaited_in_vain.size() > n_before) batch->silent.push_back(late.shard);
  }
  if (!awaited_in_vain.empty()) batch->fatal = Missing(batch, std::move(awaited_in_vain));
}

absl::Duration RemoteExpertClient::UsualElsewhere(const ExpertBatch& batch, const ExpertCall& call,
                                                  absl::Duration otherwise) const {
  const size_t n_rows = call.slots.size();
  absl::Duration usual = absl::ZeroDuration();
  for (uint32_t expert : call.experts) {
    absl::Duration fastest = absl::InfiniteDuration();
    for (int shard : batch.table->HoldersOf(batch.layer, static_cast<int>(expert))) {
      if (shard != call.shard) fastest = std::min(fastest, pace_.Usual(shard, n_rows));
    }
    usual = std::max(usual, fastest == absl::InfiniteDuration() ? otherwise : fastest);
  }
  return usual;
}

absl::Time RemoteExpertClient::LateAt(const ExpertBatch& batch, const ExpertCall& call) const {
  absl::Duration own = pace_.Usual(call.shard, call.slots.size());
  if (own == absl::InfiniteDuration()) own = options_.hedge.floor * (kUnknownFactor / kLateFactor);
  return call.sent + std::max(options_.hedge.floor, kLateFactor * UsualElsewhere(batch, call, own));
}

// Nothing without a replica to compare it with. There is no floor: where answers take less than
// that, a shard that is ten times as slow would not be noticed.
void RemoteExpertClient::Judge(const ExpertBatch& batch, const ExpertCall& call) {
  if (call.suspected) return;  // and struck
  const absl::Duration usual = UsualElsewhere(batch, call, absl::InfiniteDuration());
  if (usual == absl::InfiniteDuration()) return;
  const absl::Time now = absl::Now();
  if (now - call.sent <= kLateFactor * usual) return pace_.InTime(call.shard);
  if (!pace_.Slow(call.shard, now) || !MayReport(call.shard, now)) return;
  LogEvent(LogLevel::kWarning, "shard_slow",
           {{"shard", links_[call.shard].address},
            {"layer", call.key.layer()},
            {"took", absl::FormatDuration(now - call.sent)},
            {"elsewhere", absl::FormatDuration(usual)}});
}

void RemoteExpertClient::Try(ExpertBatch* batch, int shard, ExpertBatch::Slots slots) {
  ExpertBatch::Slots others;
  for (ExpertCall& trial :
       batch->Plan(std::move(slots), pace_, ExpertCall::Purpose::kTrial, shard, &others)) {
    trial.in_time = kLateFactor * UsualElsewhere(*batch, trial, absl::InfiniteDuration());
    Launch(batch, std::move(trial));
  }
}

void RemoteExpertClient::JudgeTrial(const ExpertCall& call, absl::Time came) {
  if (came - call.sent <= call.in_time) {
    pace_.InTime(call.shard);
  } else {
    pace_.Strike(call.shard, came);
  }
}

// The shard says that it is well, so its connection may not be: a new one is worth a try.
absl::Time RemoteExpertClient::SilentAt(const ExpertCall& call) const {
  const absl::Duration usual = pace_.Usual(call.shard, call.slots.size());
  return call.sent +
         std::min(options_.call_timeout, std::max(options_.silence, kSilentFactor * usual));
}

// Only once something is known of the shard.
absl::Time RemoteExpertClient::PatientUntil(const ExpertCall& call) const {
  const absl::Duration usual = pace_.Usual(call.shard, call.slots.size());
  return call.sent + std::max(options_.patience, kPatienceFactor * usual);
}

void RemoteExpertClient::Hedge(ExpertBatch* batch, uint64_t token) {
  ExpertCall& late = calls_.at(token);
  std::erase_if(late.to_hedge, [batch](size_t slot) { return batch->answered(slot); });
  ExpertBatch::Slots without_replica;
  std::vector<ExpertCall> calls =
      batch->Plan(late.to_hedge, pace_, ExpertCall::Purpose::kHedge, late.shard, &without_replica);
  if (calls.empty() || !budget_.Take(static_cast<int>(calls.size()))) return;
  late.to_hedge = std::move(without_replica);
  for (ExpertCall& call : calls) Launch(batch, std::move(call));  // `late` may have moved
}

void RemoteExpertClient::HedgeAgain(ExpertBatch* batch, size_t slot) {
  const auto has = [slot](const std::vector<size_t>& slots) {
    return std::find(slots.begin(), slots.end(), slot) != slots.end();
  };
  ExpertCall* late = nullptr;
  for (uint64_t token : batch->tokens) {
    const auto found = calls_.find(token);
    if (found == calls_.end() || !has(found->second.slots)) continue;
    // One that is not late may answer yet, or be hedged itself.
    if (!found->second.suspected || has(found->second.to_hedge)) return;
    late = &found->second;
  }
  if (late != nullptr) late->to_hedge.push_back(slot);
}

void RemoteExpertClient::Verify(ExpertBatch* batch, const ExpertCall& answered,
                                ExpertBatch::Slots slots) {
  const size_t n_slots = slots.size();
  if (n_verifying_ >= AnswerVerifier::kMaxPending) {
    counters_->unverified_busy += n_slots;
    return;
  }
  ExpertBatch::Slots without_replica;
  std::vector<ExpertCall> calls = batch->Plan(std::move(slots), pace_, ExpertCall::Purpose::kVerify,
                                              answered.shard, &without_replica);
  counters_->unverified_no_replica += without_replica.size();
  for (ExpertCall& call : calls) {
    call.answered_by = answered.shard;
    call.expected.reserve(call.slots.size() * d_model_);
    for (size_t slot : call.slots) {
      const float* answer = batch->answers + slot * d_model_;
      call.expected.insert(call.expected.end(), answer, answer + d_model_);
    }
    Launch(batch, std::move(call));
  }
}

void RemoteExpertClient::Abandon(const ExpertBatch& batch) {
  looked_ = absl::Now();
  for (uint64_t token : batch.tokens) {
    const auto found = calls_.find(token);
    if (found == calls_.end()) continue;
    const ExpertCall& call = found->second;
    counters_->queue_rows -= call.slots.size();
    if (call.purpose == ExpertCall::Purpose::kHedge) ++counters_->hedges_lost;
    pace_.AddOwed(call.shard, 1);
    ++n_owed_;
  }
  for (int shard : batch.silent) pace_.SetSilent(shard);
}

void RemoteExpertClient::CatchUp() {
  StreamEvent event;
  // Looks only: a deadline that is just now would wait for a millisecond.
  while (n_owed_ > 0 && streams_.WaitAny(absl::InfinitePast(), &event)) Take(nullptr, event);
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  const absl::Time now = absl::Now();
  looked_ = now;
  std::vector<int> silent;
  for (const auto& [token, call] : calls_) {
    if (now >= SilentAt(call) || !Lives(*table, call)) silent.push_back(call.shard);
  }
  for (int shard : silent) GiveUp(nullptr, shard);
}

void RemoteExpertClient::GiveUp(ExpertBatch* batch, int shard) {
  Lose(batch, shard, absl::UnavailableError("does not answer"), &counters_->retries_silent);
}

}  // namespace gatefold

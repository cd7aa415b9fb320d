// Of RemoteExpertClient: what becomes of a call.

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "router-service/dispatch/remote_expert_client.h"

namespace gatefold {
namespace {
constexpr absl::Duration kReportInterval = absl::Seconds(5);  // between lines about one shard
}  // namespace

void RemoteExpertClient::Take(ExpertBatch* batch, const StreamEvent& event) {
  if (event.kind == StreamEvent::Kind::kAnswer) {
    TakeAnswer(batch, event.token, event.answer);
  } else if (event.kind == StreamEvent::Kind::kBroken) {
    const std::deque<uint64_t> lost = event.stream->in_flight();
    static_cast<PeerLink*>(event.stream->user_data)->Forget(event.stream);
    for (uint64_t token : lost) {
      Fail(batch, token, absl::UnavailableError(event.status.message()), &counters_->retries[0]);
    }
  }
}

void RemoteExpertClient::Lose(ExpertBatch* batch, int shard, const absl::Status& status,
                              DispatchCounters::Count* retries) {
  // With its channels: a connection may be what is silent, and a new stream would share it.
  links_[shard].link.reset();
  std::vector<uint64_t> lost;
  for (const auto& [token, call] : calls_) {
    if (call.shard == shard) lost.push_back(token);
  }
  for (uint64_t token : lost) Fail(batch, token, status, retries);
}

bool RemoteExpertClient::Current(const ExpertBatch* batch, const ExpertCall& call) const {
  return batch != nullptr && call.batch == n_batches_ && call.awaited();
}

void RemoteExpertClient::Settle(const ExpertCall& call) {
  if (call.purpose == ExpertCall::Purpose::kVerify) {
    --n_verifying_;
  } else {
    pace_.AddOwed(call.shard, -1);
    --n_owed_;
  }
}

void RemoteExpertClient::TakeAnswer(ExpertBatch* batch, uint64_t token,
                                    const grpc::ByteBuffer& answer) {
  const auto found = calls_.find(token);
  if (found == calls_.end()) return;  // its call failed meanwhile
  const ExpertCall& call = found->second;
  counters_->bytes_received[call.shard] += answer.Length();
  const bool verifies = call.purpose == ExpertCall::Purpose::kVerify;
  const bool tries = call.purpose == ExpertCall::Purpose::kTrial;
  if (!tries) pace_.Answered(call.shard, call.slots.size(), absl::Now() - call.sent);
  if (!Current(batch, call) && !verifies && !tries) {  // a late second answer
    Settle(call);
    calls_.erase(found);
    return;
  }
  internal::v1::RefusalReason refusal = internal::v1::REFUSAL_REASON_UNSPECIFIED;
  absl::StatusOr<FloatReader> values = call.Read(answer, d_model_, &payload_, &refusal);
  if (const absl::Status& read = values.status(); !read.ok()) {
    const bool known = internal::v1::RefusalReason_IsValid(refusal);
    if (refusal == internal::v1::REFUSAL_REASON_BAD_REQUEST && Current(batch, call)) {
      batch->fatal = absl::InternalError(
          absl::StrCat(batch->table->experts[call.shard].address, ": ", read.message()));
    }
    return Fail(batch, token, read, &counters_->retries[known ? refusal : 0]);
  }
  const ExpertCall taken = std::move(calls_.extract(found).mapped());
  if (taken.awaited()) return TakeFirst(batch, taken, *values);
  Settle(taken);
  // Between two runs nobody looks: it may have been there since the last look.
  if (tries) return JudgeTrial(taken, batch == nullptr ? looked_ : absl::Now());
  std::vector<float> again(taken.slots.size() * d_model_);
  values->Read(again.data(), again.size());
  verifier_.Compare(taken, again, d_model_, links_[taken.answered_by].address,
                    links_[taken.shard].address);
}

// Takes what nobody has answered before: exactly one answer per (row, expert) is folded.
void RemoteExpertClient::TakeFirst(ExpertBatch* batch, const ExpertCall& call, FloatReader values) {
  ExpertBatch::Slots first;
  size_t i = 0;
  for (size_t e = 0; e < call.experts.size(); ++e) {
    const size_t n_before = first.size();
    for (const size_t end = i + call.n_rows_of_expert[e]; i < end; ++i) {
      const size_t slot = call.slots[i];
      --batch->n_carriers[slot];
      if (batch->answered(slot)) {
        values.Skip(d_model_);
        continue;
      }
      values.Read(batch->answers + slot * d_model_, d_model_);
      batch->served_by[slot] = static_cast<uint8_t>(call.shard);
      first.push_back(slot);
    }
    const size_t index = batch->table->IndexOf(batch->layer, static_cast<int>(call.experts[e]));
    counters_->rows_of_expert[index] += first.size() - n_before;
  }
  batch->n_open -= first.size();
  counters_->rows_served[call.shard] += first.size();
  counters_->queue_rows -= call.slots.size();
  Judge(*batch, call);
  if (call.purpose == ExpertCall::Purpose::kHedge) {
    ++(first.empty() ? counters_->hedges_lost : counters_->hedges_won);
  }
  if (!first.empty() && verifier_.Draw()) Verify(batch, call, std::move(first));
}

bool RemoteExpertClient::MayReport(int shard, absl::Time now) {
  if (now < links_[shard].reported + kReportInterval) return false;
  links_[shard].reported = now;
  return true;
}

void RemoteExpertClient::Fail(ExpertBatch* batch, uint64_t token, const absl::Status& status,
                              DispatchCounters::Count* retries) {
  const auto found = calls_.find(token);
  if (found == calls_.end()) return;
  const ExpertCall call = std::move(calls_.extract(found).mapped());
  const absl::Time now = absl::Now();
  pace_.Strike(call.shard, now);
  directory_->SuspectExpert(call.shard);
  const Link& link = links_[call.shard];
  if (MayReport(call.shard, now)) {
    LogEvent(LogLevel::kWarning, "dispatch_failed",
             {{"shard", link.address},
              {"layer", call.key.layer()},
              {"attempt", call.key.attempt()},
              {"traceparent", call.traceparent},
              {"error", status.message()}});
  }
  if (call.purpose == ExpertCall::Purpose::kVerify) {
    counters_->unverified_no_answer += call.slots.size();
    return Settle(call);
  }
  if (call.purpose == ExpertCall::Purpose::kTrial) return Settle(call);
  ++*retries;
  if (!Current(batch, call)) return Settle(call);
  counters_->queue_rows -= call.slots.size();
  if (call.purpose == ExpertCall::Purpose::kHedge) ++counters_->hedges_lost;
  batch->avoid[call.shard] = true;
  batch->failure = Annotate(status, link.address);
  for (size_t slot : call.slots) {
    const bool carried = --batch->n_carriers[slot] > 0;
    if (batch->answered(slot)) continue;
    if (carried) {
      HedgeAgain(batch, slot);
    } else {
      batch->unsent.push_back(slot);
    }
  }
}

}  // namespace gatefold

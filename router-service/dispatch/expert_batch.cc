#include "router-service/dispatch/expert_batch.h"

#include <algorithm>
#include <numeric>

namespace gatefold {

ExpertBatch::ExpertBatch(const Step& step, int layer, const float* h, const Routes& routes,
                         float* answers, uint8_t* served_by)
    : step(step),
      layer(layer),
      h(h),
      routes(routes),
      answers(answers),
      served_by(served_by),
      n_open(routes.experts.size()),
      unsent(n_open),
      n_carriers(n_open),
      avoid(kMaxWorkers) {
  std::iota(unsent.begin(), unsent.end(), size_t{0});
  std::fill_n(served_by, n_open, kNoShard);
}

const std::vector<int>& ExpertBatch::Holders(size_t slot) const {
  return table->HoldersOf(layer, expert(slot));
}

int ExpertBatch::Choose(size_t slot, const ShardPace& pace, ExpertCall::Purpose purpose,
                        int not_this) const {
  const std::vector<int>& holders = Holders(slot);
  int best = -1, least_lag = 0;
  for (size_t i = 0; i < holders.size(); ++i) {
    // Replicas take turns by step.
    const int candidate = holders[(step.id + expert(slot) + i) % holders.size()];
    if (candidate == not_this || avoid[candidate]) continue;
    if (purpose == ExpertCall::Purpose::kTrial && !pace.TrialDue(candidate, now)) continue;
    if (purpose == ExpertCall::Purpose::kHedge && late.contains({slot, candidate})) continue;
    const int lag = pace.Lag(candidate);
    if (best >= 0 && lag >= least_lag) continue;
    best = candidate;
    least_lag = lag;
    if (lag == 0) break;
  }
  switch (purpose) {
    case ExpertCall::Purpose::kAnswer:
      for (size_t i = 0; i < holders.size() && (best < 0 || pace.Silent(best)); ++i) {
        best = holders[(step.id + n_rounds + i) % holders.size()];
      }
      return best >= 0 && pace.Silent(best) ? -1 : best;
    case ExpertCall::Purpose::kHedge:
      return least_lag < ShardPace::kOwes ? best : -1;
    case ExpertCall::Purpose::kVerify:
      return least_lag == 0 ? best : -1;
    case ExpertCall::Purpose::kTrial:
      return best;
  }
  return -1;
}

std::vector<ExpertCall> ExpertBatch::Plan(Slots slots, const ShardPace& pace,
                                          ExpertCall::Purpose purpose, int not_this,
                                          Slots* left_over) {
  std::vector<ExpertCall> calls;
  std::vector<int> call_of_shard(table->experts.size(), -1);
  std::vector<std::vector<int>> sent_as(table->experts.size());  // by row of the step; -1: not sent
  std::stable_sort(slots.begin(), slots.end(),
                   [this](size_t a, size_t b) { return expert(a) < expert(b); });
  for (size_t slot : slots) {
    const int shard = Choose(slot, pace, purpose, not_this);
    if (shard < 0) {
      left_over->push_back(slot);
      continue;
    }
    if (call_of_shard[shard] < 0) {
      call_of_shard[shard] = static_cast<int>(calls.size());
      ExpertCall& call = calls.emplace_back();
      call.purpose = purpose;
      call.shard = shard;
      call.traceparent = step.traceparent;
      call.key.set_lane(step.lane);
      call.key.set_step(step.id);
      call.key.set_layer(layer);
      call.key.set_attempt(n_attempts);
      call.key.set_incarnation(table->experts[shard].worker.incarnation());
      sent_as[shard].assign(routes.n_rows, -1);
    }
    ExpertCall& call = calls[call_of_shard[shard]];
    int& payload_row = sent_as[shard][row(slot)];
    if (payload_row < 0) {
      payload_row = static_cast<int>(call.sent_rows.size());
      call.sent_rows.push_back(row(slot));
    }
    call.Add(slot, payload_row, expert(slot));
  }
  ++n_attempts;
  return calls;
}

}  // namespace gatefold

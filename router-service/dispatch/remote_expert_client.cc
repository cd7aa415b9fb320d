#include "router-service/dispatch/remote_expert_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {
constexpr char kRunMethod[] = "/gatefold.internal.v1.ExpertService/Run";
constexpr absl::Duration kRetryDelay = absl::Seconds(1);
}  // namespace

RemoteExpertClient::RemoteExpertClient(const RemoteExpertOptions& options, uint64_t router_id,
                                       int d_model, Directory* directory,
                                       DispatchCounters* counters)
    : options_(options),
      router_id_(router_id),
      d_model_(d_model),
      directory_(directory),
      counters_(counters),
      streams_(options.wait),
      links_(kMaxWorkers),
      pace_(kMaxWorkers, options.hedge.quantile),
      budget_(options.hedge.budget),
      verifier_(options.verify_share, router_id, counters) {}

RemoteExpertClient::~RemoteExpertClient() = default;

ExpertState RemoteExpertClient::StateOf(int layer, int expert) {
  if (n_owed_ > 0) CatchUp();
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  const std::vector<int>& holders = table->HoldersOf(layer, expert);
  if (holders.empty()) return ExpertState::kNotHeld;
  const bool live = std::any_of(holders.begin(), holders.end(),
                                [this](int shard) { return pace_.Lag(shard) < ShardPace::kOwes; });
  return live ? ExpertState::kLive : ExpertState::kSilent;
}

absl::Status RemoteExpertClient::Run(const Step& step, int layer, const float* h,
                                     const Routes& routes, float* answers, uint8_t* served_by) {
  if (n_owed_ + n_verifying_ > 0) CatchUp();
  ++n_batches_;
  missing_.clear();
  ExpertBatch batch(step, layer, h, routes, answers, served_by);
  batch.next_look = absl::Now() + options_.hedge.floor;
  absl::Status status;
  while (batch.n_open > 0 && status.ok()) {
    if (!batch.unsent.empty()) {
      status = SendUnsent(&batch);
      continue;
    }
    StreamEvent event;
    if (streams_.WaitAny(batch.next_look, &event)) Take(&batch, event);
    if (batch.n_open > 0 && absl::Now() >= batch.next_look) Look(&batch);
    status = batch.fatal;
  }
  Abandon(batch);
  if (status.ok()) counters_->rows_degraded += batch.n_degraded;
  return status;
}

absl::Status RemoteExpertClient::SendUnsent(ExpertBatch* batch) {
  batch->table = directory_->Table();
  batch->now = absl::Now();
  ExpertBatch::Slots unsent = std::exchange(batch->unsent, {});
  if (batch->n_rounds == options_.max_attempts) return Missing(batch, std::move(unsent));
  ExpertBatch::Slots homeless;
  std::vector<ExpertCall> calls =
      batch->Plan(std::move(unsent), pace_, ExpertCall::Purpose::kAnswer, -1, &homeless);
  ++batch->n_rounds;
  if (!homeless.empty()) GF_RETURN_IF_ERROR(Missing(batch, std::move(homeless)));
  std::vector<std::pair<int, ExpertBatch::Slots>> sent;
  for (ExpertCall& call : calls) {
    budget_.OnCall();
    if (pace_.AnyStruck()) sent.emplace_back(call.shard, call.slots);
    Launch(batch, std::move(call));
  }
  // After what rows wait for.
  for (auto& [shard, slots] : sent) Try(batch, shard, std::move(slots));
  return absl::OkStatus();
}

void RemoteExpertClient::Launch(ExpertBatch* batch, ExpertCall call) {
  const uint64_t token = next_token_++;
  const int shard = call.shard;
  Link& link = links_[shard];
  if (const std::string& address = batch->table->experts[shard].address; link.address != address) {
    GiveUp(batch, shard);  // the index was another's
    pace_.Forget(shard);
    link.address = address;
  }
  call.key.set_router_id(router_id_);
  call.batch = n_batches_;
  call.sent = absl::Now();
  if (call.purpose == ExpertCall::Purpose::kVerify) {
    ++n_verifying_;
  } else if (call.purpose == ExpertCall::Purpose::kTrial) {
    pace_.AddOwed(shard, 1);
    ++n_owed_;
  } else {
    for (size_t slot : call.slots) ++batch->n_carriers[slot];
    counters_->queue_rows += call.slots.size();
    batch->tokens.push_back(token);
    // The last look saw only what was under way then, and may have seen nothing.
    batch->next_look = std::min(batch->next_look, call.sent + options_.hedge.floor);
  }
  const ExpertCall& launched = calls_.emplace(token, std::move(call)).first->second;
  const absl::Status sent = Send(*batch, launched, token);
  if (!sent.ok()) Lose(batch, shard, sent, &counters_->retries[0]);
}

absl::Status RemoteExpertClient::Send(const ExpertBatch& batch, const ExpertCall& call,
                                      uint64_t token) {
  Link& link = links_[call.shard];
  if (link.link == nullptr) {
    GF_ASSIGN_OR_RETURN(link.link,
                        PeerLink::Create(&streams_, link.address, kRunMethod, options_.channels));
  }
  GF_ASSIGN_OR_RETURN(grpc::ByteBuffer frame, call.Write(options_.dtype, d_model_, batch.h));
  const size_t row_bytes = d_model_ * WireDtypeBytes(options_.dtype);
  const size_t largest = std::max(call.sent_rows.size(), call.slots.size()) * row_bytes;
  counters_->rows_sent[call.shard] += call.sent_rows.size();
  counters_->bytes_sent[call.shard] += frame.Length();
  ++counters_->messages[call.shard];
  return link.link->For(largest)->Send(std::move(frame), token);
}

void RemoteExpertClient::Drop(ExpertBatch* batch, ExpertBatch::Slots* slots) {
  batch->dropped.resize(batch->routes.experts.size());
  batch->n_dropped.resize(batch->routes.n_rows);
  std::vector<int> n_lost = batch->n_dropped;  // by row
  for (size_t slot : *slots) ++n_lost[batch->row(slot)];
  const auto drop = [&](size_t slot) {
    const int row = batch->row(slot);
    // Held, it is there and does not answer: that is no reason to go on without it.
    if (n_lost[row] == batch->routes.top_k || !batch->Holders(slot).empty()) return false;
    batch->n_degraded += batch->n_dropped[row]++ == 0;
    batch->dropped[slot] = true;  // a call under way may still answer it
    --batch->n_open;
    std::memset(batch->answers + slot * d_model_, 0, d_model_ * sizeof(float));
    return true;
  };
  std::erase_if(*slots, drop);
}

absl::Status RemoteExpertClient::Missing(ExpertBatch* batch, ExpertBatch::Slots slots) {
  if (options_.renormalise) Drop(batch, &slots);
  if (slots.empty()) return absl::OkStatus();
  for (size_t slot : slots) {
    missing_.push_back({batch->row(slot), batch->layer, batch->expert(slot),
                        Unavailable(*batch, slot), !batch->Holders(slot).empty()});
  }
  std::stable_sort(missing_.begin(), missing_.end(),
                   [](const MissingExpert& a, const MissingExpert& b) { return a.row < b.row; });
  return missing_.front().why;
}

absl::Status RemoteExpertClient::Unavailable(const ExpertBatch& batch, size_t slot) const {
  const absl::Status status = ExpertUnavailable(batch.layer, batch.expert(slot), kRetryDelay);
  if (!batch.failure.ok()) return Annotate(status, batch.failure.message());
  if (const std::vector<int>& holders = batch.Holders(slot); !holders.empty()) {
    return Annotate(status, absl::StrCat(batch.table->experts[holders.front()].address,
                                         ": does not answer yet"));
  }
  const int last = batch.table->LastHolderOf(batch.layer, batch.expert(slot));
  if (last < 0) return status;
  const WorkerEntry& shard = batch.table->experts[last];
  return Annotate(
      status, absl::StrCat(shard.address, ", which held it last, is ", WorkerStateName(shard.state),
                           shard.detail.empty() ? "" : ": ", shard.detail));
}

}  // namespace gatefold

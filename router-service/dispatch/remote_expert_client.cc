#include "router-service/dispatch/remote_expert_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {
constexpr char kRunMethod[] = "/gatefold.internal.v1.ExpertService/Run";
constexpr absl::Duration kRetryDelay = absl::Seconds(1);
}  // namespace

struct RemoteExpertClient::Batch {
  const Step* step;
  int layer;
  const float* h;
  const Routes* routes;
  float* answers;
  uint8_t* served_by;
  std::shared_ptr<const RoutingTable> table;
  std::vector<size_t> open_slots;  // not answered and not under way
  std::vector<bool> avoid;         // shards that failed in this batch
  std::vector<Call> calls;         // of this attempt
  uint64_t first_token = 0;        // of calls[0]
  int attempt = 0;
  absl::Status failure;  // of the last call that failed

  absl::Status Unavailable(int expert) const {
    const absl::Status status = ExpertUnavailable(layer, expert, kRetryDelay);
    return failure.ok() ? status : Annotate(status, failure.message());
  }
};

RemoteExpertClient::RemoteExpertClient(const RemoteExpertOptions& options, uint64_t router_id,
                                       int d_model, int experts_per_layer, Directory* directory,
                                       DispatchCounters* counters)
    : options_(options),
      router_id_(router_id),
      d_model_(d_model),
      experts_per_layer_(experts_per_layer),
      directory_(directory),
      counters_(counters),
      streams_(options.wait),
      links_(kMaxWorkers) {}

RemoteExpertClient::~RemoteExpertClient() = default;

std::vector<std::string> RemoteExpertClient::ShardNames() const {
  std::vector<std::string> names;
  for (const WorkerEntry& entry : directory_->Table()->experts) {
    names.push_back(entry.worker.name().empty() ? entry.address : entry.worker.name());
  }
  return names;
}

absl::Status RemoteExpertClient::Run(const Step& step, int layer, const float* h,
                                     const Routes& routes, float* answers, uint8_t* served_by) {
  Batch batch{&step, layer, h, &routes, answers, served_by};
  batch.avoid.resize(links_.size());
  batch.open_slots.resize(routes.experts.size());
  for (size_t slot = 0; slot < batch.open_slots.size(); ++slot) batch.open_slots[slot] = slot;
  while (!batch.open_slots.empty()) {
    if (batch.attempt == options_.max_attempts) {
      return batch.Unavailable(routes.experts[batch.open_slots.front()]);
    }
    batch.table = directory_->Table();
    GF_RETURN_IF_ERROR(Plan(&batch));
    batch.first_token = next_token_;
    next_token_ += batch.calls.size();
    for (size_t i = 0; i < batch.calls.size(); ++i) {
      counters_->queue_rows += batch.calls[i].slots.size();
      const absl::Status sent = Send(&batch, i);
      if (!sent.ok()) Fail(&batch, &batch.calls[i], sent);
    }
    GF_RETURN_IF_ERROR(Collect(&batch));
    ++batch.attempt;
  }
  return absl::OkStatus();
}

// Groups the open slots by shard, and within a shard by expert.
absl::Status RemoteExpertClient::Plan(Batch* batch) {
  const Routes& routes = *batch->routes;
  const RoutingTable& table = *batch->table;
  std::vector<int> call_of_shard(table.experts.size(), -1);
  std::vector<std::vector<int>> payload_row(table.experts.size());  // by step row; -1: not sent
  batch->calls.clear();
  std::stable_sort(batch->open_slots.begin(), batch->open_slots.end(),
                   [&](size_t a, size_t b) { return routes.experts[a] < routes.experts[b]; });
  for (size_t slot : batch->open_slots) {
    const int expert = routes.experts[slot];
    const int row = static_cast<int>(slot / routes.top_k);
    const auto& holders =
        table.holders[static_cast<size_t>(batch->layer) * experts_per_layer_ + expert];
    if (holders.empty()) return batch->Unavailable(expert);
    // Replicas take turns by step; one that failed is asked again only if no other holds it.
    int shard = -1;
    for (size_t i = 0; i < holders.size() && shard < 0; ++i) {
      const int candidate = holders[(batch->step->id + expert + i) % holders.size()];
      if (!batch->avoid[candidate]) shard = candidate;
    }
    if (shard < 0) shard = holders[(batch->step->id + batch->attempt) % holders.size()];
    if (call_of_shard[shard] < 0) {
      call_of_shard[shard] = static_cast<int>(batch->calls.size());
      batch->calls.emplace_back().shard = shard;
      payload_row[shard].assign(routes.n_rows, -1);
    }
    Call& call = batch->calls[call_of_shard[shard]];
    int& sent_as = payload_row[shard][row];
    if (sent_as < 0) {
      sent_as = static_cast<int>(call.sent_rows.size());
      call.sent_rows.push_back(row);
    }
    if (call.experts.empty() || call.experts.back() != static_cast<uint32_t>(expert)) {
      call.experts.push_back(expert);
      call.n_rows_of_expert.push_back(0);
    }
    ++call.n_rows_of_expert.back();
    call.rows.push_back(sent_as);
    call.slots.push_back(slot);
  }
  batch->open_slots.clear();
  return absl::OkStatus();
}

absl::Status RemoteExpertClient::Send(Batch* batch, size_t index) {
  const Call& call = batch->calls[index];
  const WorkerEntry& shard = batch->table->experts[call.shard];
  internal::v1::RunExpertsRequest header;
  internal::v1::CallKey* key = header.mutable_key();
  key->set_router_id(router_id_);
  key->set_lane(batch->step->lane);
  key->set_step(batch->step->id);
  key->set_layer(batch->layer);
  key->set_attempt(batch->attempt);
  key->set_incarnation(shard.worker.incarnation());
  header.set_dtype(options_.dtype);
  header.set_n_rows(static_cast<uint32_t>(call.sent_rows.size()));
  header.set_d_model(d_model_);
  header.mutable_experts()->Assign(call.experts.begin(), call.experts.end());
  header.mutable_n_rows_of_expert()->Assign(call.n_rows_of_expert.begin(),
                                            call.n_rows_of_expert.end());
  header.mutable_rows()->Assign(call.rows.begin(), call.rows.end());
  GF_ASSIGN_OR_RETURN(PayloadBuffer rows,
                      MakePayload(options_.dtype, call.sent_rows.size(), d_model_));
  for (size_t i = 0; i < call.sent_rows.size(); ++i) {
    const float* row = batch->h + static_cast<size_t>(call.sent_rows[i]) * d_model_;
    WriteFloats(options_.dtype, absl::MakeConstSpan(row, d_model_), i * d_model_, &rows);
  }
  Link& link = links_[call.shard];
  if (link.link == nullptr || link.address != shard.address) {
    link.address = shard.address;
    GF_ASSIGN_OR_RETURN(link.link,
                        PeerLink::Create(&streams_, shard.address, kRunMethod, options_.channels));
  }
  const size_t answer_bytes = call.slots.size() * d_model_ * WireDtypeBytes(options_.dtype);
  PeerStream* stream = link.link->For(std::max(rows.size_bytes(), answer_bytes));
  counters_->rows_sent[call.shard] += call.sent_rows.size();
  ++counters_->messages[call.shard];
  return stream->Send(WriteFrame(header, rows), batch->first_token + index);
}

// Until every call of this attempt is answered or has failed.
absl::Status RemoteExpertClient::Collect(Batch* batch) {
  const absl::Time deadline = absl::Now() + options_.call_timeout;
  const auto pending = [&] {
    return std::any_of(batch->calls.begin(), batch->calls.end(),
                       [](const Call& call) { return !call.done; });
  };
  while (pending()) {
    StreamEvent event;
    if (!streams_.WaitAny(deadline, &event)) {
      for (Call& call : batch->calls) {
        if (call.done) continue;
        links_[call.shard].link->Close();
        Fail(batch, &call, absl::UnavailableError("does not answer"));
      }
      break;
    }
    if (event.kind == StreamEvent::Kind::kAnswer) {
      // An answer to a call of an earlier attempt is dropped.
      if (event.token < batch->first_token) continue;
      Call* call = &batch->calls[event.token - batch->first_token];
      const absl::Status taken = TakeAnswer(batch, call, event.answer);
      if (!taken.ok()) Fail(batch, call, taken);
    } else if (event.kind == StreamEvent::Kind::kBroken) {
      const std::deque<uint64_t> lost = event.stream->in_flight();
      static_cast<PeerLink*>(event.stream->user_data)->Forget(event.stream);
      for (uint64_t token : lost) {
        if (token < batch->first_token) continue;
        Fail(batch, &batch->calls[token - batch->first_token],
             absl::UnavailableError(event.status.message()));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status RemoteExpertClient::TakeAnswer(Batch* batch, Call* call,
                                            const grpc::ByteBuffer& answer) {
  internal::v1::RunExpertsResponse header;
  GF_RETURN_IF_ERROR(ReadFrame(answer, &header, &payload_));
  if (header.has_refusal()) {
    call->refusal = header.refusal().reason();
    return absl::UnavailableError(
        absl::StrCat(internal::v1::RefusalReason_Name(header.refusal().reason()), ": ",
                     header.refusal().message()));
  }
  if (header.n_rows() != call->slots.size() ||
      header.d_model() != static_cast<uint32_t>(d_model_) ||
      header.key().step() != batch->step->id ||
      header.key().layer() != static_cast<uint32_t>(batch->layer)) {
    return absl::InternalError(absl::StrCat("answered ", header.n_rows(), " rows of ",
                                            header.d_model(), ", wanted ", call->slots.size(),
                                            " of ", d_model_));
  }
  GF_RETURN_IF_ERROR(CheckShape(payload_, header.dtype(), header.n_rows(), header.d_model()));
  received_.resize(call->slots.size() * d_model_);
  payload_.ReadFloats(header.dtype(), received_.data());
  for (size_t i = 0; i < call->slots.size(); ++i) {
    const size_t slot = call->slots[i];
    std::memcpy(batch->answers + slot * d_model_, received_.data() + i * d_model_,
                d_model_ * sizeof(float));
    batch->served_by[slot] = static_cast<uint8_t>(call->shard);
  }
  call->done = true;
  counters_->rows_served[call->shard] += call->slots.size();
  for (size_t i = 0; i < call->experts.size(); ++i) {
    counters_->rows_of_expert[static_cast<size_t>(batch->layer) * experts_per_layer_ +
                              call->experts[i]] += call->n_rows_of_expert[i];
  }
  counters_->queue_rows -= call->slots.size();
  return absl::OkStatus();
}

void RemoteExpertClient::Fail(Batch* batch, Call* call, const absl::Status& status) {
  if (call->done) return;
  call->done = true;
  counters_->queue_rows -= call->slots.size();
  const bool known = internal::v1::RefusalReason_IsValid(call->refusal);
  ++counters_->retries[known ? call->refusal : 0];
  const WorkerEntry& shard = batch->table->experts[call->shard];
  batch->failure = Annotate(status, shard.address);
  LogEvent(LogLevel::kWarning, "dispatch_failed",
           {{"shard", shard.address},
            {"layer", batch->layer},
            {"attempt", batch->attempt},
            {"error", status.message()}});
  batch->avoid[call->shard] = true;
  batch->open_slots.insert(batch->open_slots.end(), call->slots.begin(), call->slots.end());
  directory_->SuspectExpert(call->shard);
}

}  // namespace gatefold

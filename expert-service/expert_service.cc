#include "expert-service/expert_service.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/traceparent.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/frame.h"

namespace gatefold {
namespace {

constexpr char kService[] = "gatefold.internal.v1.ExpertService";
constexpr int kMaxHolders = 64;

internal::v1::RefusalReason ReasonFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return internal::v1::REFUSAL_REASON_EXPERT_NOT_HELD;
    case absl::StatusCode::kUnavailable:
      return internal::v1::REFUSAL_REASON_NOT_READY;
    case absl::StatusCode::kAborted:
      return internal::v1::REFUSAL_REASON_STALE_EPOCH;
    default:
      return internal::v1::REFUSAL_REASON_BAD_REQUEST;
  }
}

absl::Status Mismatch(absl::string_view what, uint64_t got, uint64_t wanted) {
  return absl::InvalidArgumentError(absl::StrCat(what, " is ", got, ", must be ", wanted));
}

// The request's visits, if its numbers fit each other and the model.
absl::StatusOr<std::vector<ExpertVisit>> Visits(
    const internal::v1::ExpertServiceRunRequest& request, const ModelConfig& config) {
  if (request.d_model() != static_cast<uint32_t>(config.d_model)) {
    return Mismatch("d_model", request.d_model(), config.d_model);
  }
  if (request.key().layer() >= static_cast<uint32_t>(config.n_layers)) {
    return absl::InvalidArgumentError(
        absl::StrCat("key.layer is ", request.key().layer(), ", the model has ", config.n_layers));
  }
  if (request.n_rows_of_expert_size() != request.experts_size()) {
    return Mismatch("size of n_rows_of_expert", request.n_rows_of_expert_size(),
                    request.experts_size());
  }
  const uint64_t n_slots = std::accumulate(request.n_rows_of_expert().begin(),
                                           request.n_rows_of_expert().end(), uint64_t{0});
  if (n_slots != static_cast<uint64_t>(request.rows_size())) {
    return Mismatch("size of rows", request.rows_size(), n_slots);
  }
  std::vector<ExpertVisit> visits(request.experts_size());
  int32_t slot = 0;
  for (int i = 0; i < request.experts_size(); ++i) {
    const uint32_t expert = request.experts(i);
    if (expert >= static_cast<uint32_t>(config.experts_per_layer()) ||
        (i > 0 && expert <= request.experts(i - 1))) {
      return absl::InvalidArgumentError(absl::StrCat("experts[", i, "] is ", expert,
                                                     ", must ascend and be below ",
                                                     config.experts_per_layer()));
    }
    visits[i].expert = static_cast<int>(expert);
    for (uint32_t n = 0; n < request.n_rows_of_expert(i); ++n, ++slot) {
      if (request.rows(slot) >= request.n_rows()) {
        return absl::InvalidArgumentError(absl::StrCat("rows[", slot, "] is ", request.rows(slot),
                                                       ", n_rows says ", request.n_rows()));
      }
      visits[i].rows.push_back(static_cast<int32_t>(request.rows(slot)));
      visits[i].slots.push_back(slot);
    }
  }
  return visits;
}

using ExpertRanges = google::protobuf::RepeatedPtrField<internal::v1::ExpertRange>;

// What ranges name, if the model has it. `field` is for messages.
absl::StatusOr<std::vector<ExpertId>> Experts(const ExpertRanges& ranges, absl::string_view field,
                                              const ModelConfig& config) {
  const auto per_layer = static_cast<uint32_t>(config.experts_per_layer());
  std::vector<ExpertId> experts;
  for (int i = 0; i < ranges.size(); ++i) {
    const internal::v1::ExpertRange& range = ranges[i];
    if (range.layer() >= static_cast<uint32_t>(config.n_layers)) {
      return absl::InvalidArgumentError(absl::StrCat(field, "[", i, "].layer is ", range.layer(),
                                                     ", the model has ", config.n_layers));
    }
    if (range.first_expert() >= per_layer || range.n_experts() > per_layer - range.first_expert()) {
      return absl::InvalidArgumentError(absl::StrCat(field, "[", i, "] is ", range.n_experts(),
                                                     " from ", range.first_expert(),
                                                     ", a layer has ", per_layer));
    }
    // Ranges may overlap, but no more of them are looked at than could be needed.
    if (experts.size() > static_cast<size_t>(config.n_layers) * per_layer) {
      return absl::InvalidArgumentError(absl::StrCat(field, " names some more than once"));
    }
    for (uint32_t n = 0; n < range.n_experts(); ++n) {
      experts.push_back(
          {static_cast<int>(range.layer()), static_cast<int>(range.first_expert() + n)});
    }
  }
  return experts;
}

absl::StatusOr<std::vector<ExpertHolder>> Holders(const internal::v1::AssignRequest& request,
                                                  const ModelConfig& config) {
  if (request.holders_size() > kMaxHolders) {
    return absl::InvalidArgumentError(absl::StrCat("size of holders is ", request.holders_size(),
                                                   ", must be at most ", kMaxHolders));
  }
  std::vector<ExpertHolder> holders;
  for (int i = 0; i < request.holders_size(); ++i) {
    const internal::v1::ExpertHolder& holder = request.holders(i);
    const std::string field = absl::StrCat("holders[", i, "]");
    GF_RETURN_IF_ERROR(Annotate(ParseAddress(holder.address()).status(), field));
    GF_ASSIGN_OR_RETURN(std::vector<ExpertId> experts,
                        Experts(holder.experts(), absl::StrCat(field, ".experts"), config));
    std::sort(experts.begin(), experts.end());
    holders.push_back({holder.address(), std::move(experts)});
  }
  return holders;
}

}  // namespace

class ExpertService::Session final : public StreamSession {
 public:
  explicit Session(ExpertService* service) : service_(service) {}

  absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time received) override {
    const absl::Time start = absl::Now();
    internal::v1::ExpertServiceRunRequest request;
    GF_RETURN_IF_ERROR(ReadFrame(frame, &request, &received_));
    frame.Clear();
    if (service_->observer_ != nullptr) service_->observer_->OnCallStarted();
    internal::v1::ExpertServiceRunResponse response;
    *response.mutable_key() = request.key();
    PayloadBuffer payload;
    absl::Status served = Serve(request, &response, &payload);
    received_.Clear();  // streams are many, and who sent it may send nothing more
    if (!served.ok()) {
      payload = PayloadBuffer();
      response.mutable_refusal()->set_reason(ReasonFor(served));
      response.mutable_refusal()->set_message(std::string(served.message()));
    }
    const absl::Duration queue = std::max(start - received, absl::ZeroDuration());
    const absl::Duration compute = absl::Now() - start;
    response.set_queue_nanos(absl::ToInt64Nanoseconds(queue));
    response.set_compute_nanos(absl::ToInt64Nanoseconds(compute));
    service_->busy_nanos_ += response.compute_nanos();
    if (!response.has_refusal()) service_->n_rows_computed_ += request.rows_size();
    if (service_->observer_ != nullptr) {
      const int layer = response.has_refusal() ? -1 : static_cast<int>(request.key().layer());
      service_->observer_->OnCall(layer, request.rows_size(), queue, compute);
    }
    LogTraced(request, response);
    return WriteFrame(response, payload);
  }

 private:
  // A span of a trace, in the log: only operators who want as much have it.
  static void LogTraced(const internal::v1::ExpertServiceRunRequest& request,
                        const internal::v1::ExpertServiceRunResponse& response) {
    if (!IsLogged(LogLevel::kDebug)) return;
    const absl::string_view traceparent = ValidTraceparent(request.traceparent());
    if (traceparent.empty()) return;
    LogEvent(LogLevel::kDebug, "experts_run",
             {{"traceparent", traceparent},
              {"lane", request.key().lane()},
              {"step", request.key().step()},
              {"layer", request.key().layer()},
              {"rows", request.rows_size()},
              {"queue_us", response.queue_nanos() * 1e-3},
              {"compute_us", response.compute_nanos() * 1e-3},
              {"refused", response.has_refusal() ? response.refusal().message() : ""}});
  }

  absl::Status Serve(const internal::v1::ExpertServiceRunRequest& request,
                     internal::v1::ExpertServiceRunResponse* response, PayloadBuffer* payload) {
    if (!service_->ready_) return absl::UnavailableError("this shard is still loading");
    const uint64_t incarnation = request.key().incarnation();
    if (incarnation != 0 && incarnation != service_->worker_.incarnation()) {
      return absl::AbortedError("this shard was restarted since it was described");
    }
    const ModelConfig& config = service_->runner_->store().config();
    GF_ASSIGN_OR_RETURN(const std::vector<ExpertVisit> visits, Visits(request, config));
    GF_RETURN_IF_ERROR(CheckShape(received_, request.dtype(), request.n_rows(), request.d_model()));
    GF_ASSIGN_OR_RETURN(OutgoingRows y, OutgoingRows::Make(request.dtype(), request.rows_size(),
                                                           request.d_model()));
    const size_t n_values = static_cast<size_t>(request.n_rows()) * request.d_model();
    PayloadBuffer x(n_values * sizeof(float));
    FloatReader(received_, request.dtype()).Read(x.as<float>(), n_values);
    GF_RETURN_IF_ERROR(service_->runner_->Run(static_cast<int>(request.key().layer()), visits,
                                              x.as<float>(), static_cast<int>(request.n_rows()),
                                              y.data()));
    *payload = y.TakePayload();
    response->set_dtype(request.dtype());
    response->set_n_rows(request.rows_size());
    response->set_d_model(request.d_model());
    return absl::OkStatus();
  }

  ExpertService* const service_;
  FramePayload received_;
};

ExpertService::ExpertService(ExpertRunner* runner, const internal::v1::WorkerDescription& worker,
                             ExpertObserver* observer)
    : runner_(runner), worker_(worker), observer_(observer) {}

void ExpertService::Register(RpcServer* server) {
  AddUnary<internal::v1::ExpertServiceDescribeRequest, internal::v1::ExpertServiceDescribeResponse>(
      server, kService, "Describe",
      [this](std::shared_ptr<CallContext>, const internal::v1::ExpertServiceDescribeRequest&,
             Respond<internal::v1::ExpertServiceDescribeResponse> respond) {
        internal::v1::ExpertServiceDescribeResponse response;
        *response.mutable_shard() = Describe();
        respond(response);
      });
  MethodOptions many_ranges;  // 64 holders of a large model's experts: its bytes are the limit
  many_ranges.max_request_parts = many_ranges.max_request_bytes;
  AddUnary<internal::v1::AssignRequest, internal::v1::AssignResponse>(
      server, kService, "Assign",
      [this](std::shared_ptr<CallContext>, const internal::v1::AssignRequest& request,
             Respond<internal::v1::AssignResponse> respond) {
        if (absl::Status assigned = Assign(request); !assigned.ok()) return respond(assigned);
        internal::v1::AssignResponse response;
        *response.mutable_shard() = Describe();
        respond(response);
      },
      many_ranges);
  AddUnary<internal::v1::ExpertServiceSetDrainingRequest,
           internal::v1::ExpertServiceSetDrainingResponse>(
      server, kService, "SetDraining",
      [this](std::shared_ptr<CallContext>,
             const internal::v1::ExpertServiceSetDrainingRequest& request,
             Respond<internal::v1::ExpertServiceSetDrainingResponse> respond) {
        if (absl::Status set = SetDrained(request.draining()); !set.ok()) return respond(set);
        internal::v1::ExpertServiceSetDrainingResponse response;
        *response.mutable_shard() = Describe();
        respond(response);
      });
  AddServerStreaming<internal::v1::WatchRequest, internal::v1::WatchResponse>(
      server, kService, "Watch",
      [this](std::shared_ptr<CallContext> call, const internal::v1::WatchRequest&,
             std::shared_ptr<WatchStream> stream) {
        const std::weak_ptr<WatchStream> watcher = stream;
        {
          absl::MutexLock lock(&watchers_mu_);
          internal::v1::WatchResponse now;
          *now.mutable_shard() = Describe();
          stream->Write(now);
          watchers_.push_back(std::move(stream));
        }
        // Routers come and go, and a shard may never change again.
        call->OnCancel([this, watcher] {
          const std::shared_ptr<WatchStream> gone = watcher.lock();  // null: forgotten already
          absl::MutexLock lock(&watchers_mu_);
          std::erase(watchers_, gone);
        });
      });
  if (sender_ != nullptr) {
    AddServerStreaming<internal::v1::FetchExpertRequest, internal::v1::FetchExpertResponse>(
        server, kService, "FetchExpert",
        [sender = sender_](std::shared_ptr<CallContext> call,
                           const internal::v1::FetchExpertRequest& request,
                           std::shared_ptr<ExpertSender::Stream> stream) {
          sender->Send(std::move(call), request, std::move(stream));
        },
        ExpertSender::Method());
  }
  AddStream(server, kService, "Run", this, StreamOptions());
}

absl::Status ExpertService::Assign(const internal::v1::AssignRequest& request) {
  if (loader_ == nullptr) {
    return absl::FailedPreconditionError(
        "this shard's experts are fixed; start it with --experts=none to have them assigned");
  }
  const ModelConfig& config = runner_->store().config();
  if (request.n_slices() != 0 && request.n_slices() != static_cast<uint32_t>(config.n_slices)) {
    return Mismatch("n_slices", request.n_slices(), config.n_slices);
  }
  GF_ASSIGN_OR_RETURN(std::vector<ExpertId> experts, Experts(request.experts(), "experts", config));
  GF_ASSIGN_OR_RETURN(std::vector<ExpertHolder> holders, Holders(request, config));
  const size_t n_holders = holders.size();
  GF_RETURN_IF_ERROR(loader_->Assign(request.epoch(), std::move(experts), std::move(holders)));
  LogEvent(LogLevel::kInfo, "assigned",
           {{"epoch", request.epoch()}, {"to_load", loader_->n_loading()}, {"holders", n_holders}});
  return absl::OkStatus();
}

absl::Status ExpertService::SetDrained(bool drained) {
  if (ending_ && !drained) {
    return absl::FailedPreconditionError("this shard is ending; start another one");
  }
  draining_ = drained;
  if (ending_) draining_ = true;  // it was told so just now
  LogEvent(LogLevel::kInfo, drained ? "drained_by_operator" : "resumed_by_operator", {});
  Announce();
  return absl::OkStatus();
}

void ExpertService::SetState(std::atomic<bool>* state) {
  *state = true;
  Announce();
}

void ExpertService::Announce() {
  absl::MutexLock lock(&watchers_mu_);
  internal::v1::WatchResponse now;  // looked at under the lock: the last word is the newest
  *now.mutable_shard() = Describe();
  std::erase_if(watchers_, [&now](const std::shared_ptr<WatchStream>& watcher) {
    return watcher->Write(now) == StreamWrite::kClosed;
  });
}

void ExpertService::EndWatches() {
  absl::MutexLock lock(&watchers_mu_);
  for (const auto& watcher : watchers_) watcher->Finish(absl::UnavailableError("draining"));
  watchers_.clear();
}

int ExpertService::n_watchers() const {
  absl::MutexLock lock(&watchers_mu_);
  return static_cast<int>(watchers_.size());
}

absl::StatusOr<std::unique_ptr<StreamSession>> ExpertService::OnOpen(
    const std::shared_ptr<CallContext>&) {
  return std::make_unique<Session>(this);
}

grpc::ByteBuffer ExpertService::Refuse(const grpc::ByteBuffer& frame) {
  internal::v1::ExpertServiceRunRequest request;
  FramePayload payload;
  internal::v1::ExpertServiceRunResponse response;
  if (ReadFrame(frame, &request, &payload).ok()) *response.mutable_key() = request.key();
  response.mutable_refusal()->set_reason(internal::v1::REFUSAL_REASON_BUSY);
  response.mutable_refusal()->set_message("too many calls wait for this shard");
  return WriteMessage(response);
}

internal::v1::ExpertShard ExpertService::Describe() const {
  internal::v1::ExpertShard shard;
  *shard.mutable_worker() = worker_;
  shard.mutable_worker()->set_ready(ready_);
  shard.mutable_worker()->set_draining(draining_);
  shard.mutable_worker()->set_ending(ending_);
  shard.set_busy_nanos(busy_nanos_);
  shard.set_n_rows_computed(n_rows_computed_);
  shard.set_loaded_bytes(runner_->store().loaded_bytes());
  if (sender_ != nullptr) {
    shard.set_has_checkpoint(sender_->has_checkpoint());
    shard.set_sends_held(sender_->sends_held());
  }
  if (loader_ != nullptr) {
    shard.set_assignable(true);
    shard.set_capacity_bytes(loader_->capacity_bytes());
    shard.set_epoch(loader_->epoch());
    shard.set_n_loading(static_cast<uint32_t>(loader_->n_loading()));
  }
  internal::v1::ExpertRange* range = nullptr;
  for (const ExpertId& id : runner_->store().Held()) {
    const bool follows =
        range != nullptr && range->layer() == static_cast<uint32_t>(id.layer) &&
        range->first_expert() + range->n_experts() == static_cast<uint32_t>(id.expert);
    if (!follows) {
      range = shard.add_held();
      range->set_layer(id.layer);
      range->set_first_expert(id.expert);
    }
    range->set_n_experts(range->n_experts() + 1);
    shard.add_n_rows(runner_->n_rows(id));
  }
  return shard;
}

}  // namespace gatefold

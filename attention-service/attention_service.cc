#include "attention-service/attention_service.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/traceparent.h"
#include "gatefold/engine/attention_wire.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/frame.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"

namespace gatefold {
namespace {

constexpr char kService[] = "gatefold.internal.v1.AttentionService";

internal::v1::RefusalReason ReasonFor(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kAborted:
      return internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE;
    case absl::StatusCode::kResourceExhausted:
      return internal::v1::REFUSAL_REASON_KV_CACHE_FULL;
    case absl::StatusCode::kUnavailable:
      return internal::v1::REFUSAL_REASON_DRAINING;
    default:
      return internal::v1::REFUSAL_REASON_BAD_REQUEST;
  }
}

void SetRefusal(const absl::Status& status, internal::v1::Refusal* refusal) {
  refusal->set_reason(ReasonFor(status));
  refusal->set_message(std::string(status.message()));
}

}  // namespace

// One stream of one lane.
class AttentionService::Session final : public StreamSession {
 public:
  explicit Session(AttentionService* service) : service_(service) {}

  // By operation and rows: of frames of one size one may open a sequence, by its token ids, and the
  // next compute a layer for them.
  int KindOf(const grpc::ByteBuffer& frame) const override {
    using google::protobuf::internal::WireFormatLite;
    grpc::ByteBuffer shared(frame);  // the reader wants one that it may change
    grpc::ProtoBufferReader reader(&shared);
    google::protobuf::io::CodedInputStream in(&reader);
    uint32_t operation = 0, n_rows = 0;
    while (const uint32_t tag = in.ReadTag()) {
      const int field = WireFormatLite::GetTagFieldNumber(tag);
      if (field > internal::v1::AttentionServiceRunRequest::kNRowsFieldNumber) break;
      uint32_t* const wanted =
          field == internal::v1::AttentionServiceRunRequest::kOperationFieldNumber ? &operation
          : field == internal::v1::AttentionServiceRunRequest::kNRowsFieldNumber   ? &n_rows
                                                                                   : nullptr;
      if (wanted == nullptr ? !WireFormatLite::SkipField(&in, tag) : !in.ReadVarint32(wanted))
        break;
    }
    constexpr int kSizes = 33;  // of a uint32, in bits
    return static_cast<int>(std::min(operation, 7u)) * kSizes +
           static_cast<int>(std::bit_width(n_rows));
  }

  absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time received) override {
    const absl::Time start = absl::Now();
    internal::v1::AttentionServiceRunRequest request;
    GF_RETURN_IF_ERROR(ReadFrame(frame, &request, &received_));
    frame.Clear();
    internal::v1::AttentionServiceRunResponse response;
    *response.mutable_key() = request.key();
    PayloadBuffer payload;
    const absl::Status served = Serve(request, &response, &payload);
    received_.Clear();  // streams are many, and who sent it may send nothing more
    if (!served.ok()) {
      response.clear_opened();
      response.clear_n_cached();
      response.clear_sampled();
      payload = PayloadBuffer();
      SetRefusal(served, response.mutable_refusal());
    }
    const absl::Time end = absl::Now();
    response.set_n_kv_blocks_free(service_->runner_->cache()->n_available());
    response.set_draining(service_->draining_);
    response.set_queue_nanos(
        absl::ToInt64Nanoseconds(std::max(start - received, absl::ZeroDuration())));
    response.set_compute_nanos(absl::ToInt64Nanoseconds(end - start));
    service_->busy_nanos_ += response.compute_nanos();
    if (service_->observer_ != nullptr) {
      service_->observer_->OnCall(static_cast<int>(request.n_rows()), start - received,
                                  end - start);
    }
    LogTraced(request, response);
    return WriteFrame(response, payload);
  }

 private:
  // A span of a trace, in the log: only operators who want as much have it.
  static void LogTraced(const internal::v1::AttentionServiceRunRequest& request,
                        const internal::v1::AttentionServiceRunResponse& response) {
    if (!IsLogged(LogLevel::kDebug)) return;
    const absl::string_view traceparent = ValidTraceparent(request.traceparent());
    if (traceparent.empty()) return;
    LogEvent(LogLevel::kDebug, "attention_run",
             {{"traceparent", traceparent},
              {"lane", request.key().lane()},
              {"step", request.key().step()},
              {"layer", request.key().layer()},
              {"operation", internal::v1::AttentionOperation_Name(request.operation())},
              {"rows", request.n_rows()},
              {"queue_us", response.queue_nanos() * 1e-3},
              {"compute_us", response.compute_nanos() * 1e-3},
              {"refused", response.has_refusal() ? response.refusal().message() : ""}});
  }

  absl::Status Serve(const internal::v1::AttentionServiceRunRequest& request,
                     internal::v1::AttentionServiceRunResponse* response, PayloadBuffer* payload) {
    const uint64_t incarnation = request.key().incarnation();
    if (incarnation != 0 && incarnation != service_->worker_.incarnation()) {
      return absl::AbortedError("this service was restarted since it was described");
    }
    if (lane_ == nullptr) {
      lane_ = service_->lanes_.Join(request.key().router_id(), request.key().lane(),
                                    request.key().generation());
    }
    absl::MutexLock lock(&lane_->mu);
    for (SequenceId id : request.close()) lane_->table.Close(id);
    switch (request.operation()) {
      case internal::v1::ATTENTION_OPERATION_SEQUENCES:
        return OpenSequences(request, response);
      case internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND:
      case internal::v1::ATTENTION_OPERATION_ATTEND:
        return Attend(request, response, payload);
      case internal::v1::ATTENTION_OPERATION_SAMPLE:
        return Sample(request, response);
      default:
        return absl::InvalidArgumentError(
            absl::StrCat("operation ", request.operation(), " is not known"));
    }
  }

  absl::Status OpenSequences(const internal::v1::AttentionServiceRunRequest& request,
                             internal::v1::AttentionServiceRunResponse* response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(lane_->mu) {
    for (const internal::v1::OpenSequence& open : request.open()) {
      internal::v1::Refusal* opened = response->add_opened();
      absl::StatusOr<SequenceSpec> spec = FromProto(open);
      absl::Status status = spec.status();
      if (service_->draining_) status = absl::UnavailableError("this service is draining");
      const int most = service_->host_->max_sequence_tokens();
      if (status.ok() && spec->n_positions > most) {
        status = absl::InvalidArgumentError(
            absl::StrCat("n_positions is ", spec->n_positions, ", this service takes ", most));
      }
      int n_cached = 0;
      if (status.ok()) {
        const absl::StatusOr<int> cached = lane_->table.Open(*spec, open.cache_domain());
        status = cached.status();
        if (status.ok()) n_cached = *cached;
      }
      if (!status.ok()) SetRefusal(status, opened);
      response->add_n_cached(n_cached);
      if (status.ok() && open.max_cached() > 0 && service_->observer_ != nullptr) {
        service_->observer_->OnLookUp(n_cached, open.token_ids_size() - n_cached);
      }
    }
    return absl::OkStatus();
  }

  absl::Status Attend(const internal::v1::AttentionServiceRunRequest& request,
                      internal::v1::AttentionServiceRunResponse* response, PayloadBuffer* payload)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(lane_->mu) {
    GF_RETURN_IF_ERROR(CheckModel(request));
    GF_ASSIGN_OR_RETURN(const std::vector<StepSpan> spans, SpansFromProto(request));
    const bool embeds = request.operation() == internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND;
    if (embeds && request.token_ids_size() != static_cast<int64_t>(request.n_rows())) {
      return absl::InvalidArgumentError(absl::StrCat("token_ids has ", request.token_ids_size(),
                                                     " entries, n_rows says ", request.n_rows()));
    }
    if (!embeds) GF_RETURN_IF_ERROR(CheckRows(request));
    GF_ASSIGN_OR_RETURN(OutgoingRows x,
                        OutgoingRows::Make(request.dtype(), request.n_rows(), request.d_model()));
    if (embeds) {
      std::vector<SequenceId> starved;
      const absl::Status embedded = service_->runner_->EmbedAndAttend(
          &lane_->table, spans, request.token_ids(), x.data(), &starved);
      response->mutable_starved()->Assign(starved.begin(), starved.end());
      GF_RETURN_IF_ERROR(embedded);
    } else {
      ReadRows(request, x.data());
      if (request.key().layer() > (1u << 20)) {
        return absl::InvalidArgumentError(absl::StrCat("layer is ", request.key().layer()));
      }
      GF_RETURN_IF_ERROR(service_->runner_->Attend(
          &lane_->table, static_cast<int>(request.key().layer()), spans, x.data()));
    }
    *payload = x.TakePayload();
    response->set_dtype(request.dtype());
    response->set_n_rows(request.n_rows());
    response->set_d_model(request.d_model());
    return absl::OkStatus();
  }

  absl::Status Sample(const internal::v1::AttentionServiceRunRequest& request,
                      internal::v1::AttentionServiceRunResponse* response)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(lane_->mu) {
    GF_RETURN_IF_ERROR(CheckModel(request));
    GF_ASSIGN_OR_RETURN(const std::vector<SampleRequest> samples, SamplesFromProto(request));
    GF_RETURN_IF_ERROR(CheckRows(request));
    PayloadBuffer x(static_cast<size_t>(request.n_rows()) * request.d_model() * sizeof(float));
    ReadRows(request, x.as<float>());
    GF_ASSIGN_OR_RETURN(const std::vector<Sampled> sampled,
                        service_->runner_->Sample(&lane_->table, samples, x.as<float>()));
    for (const Sampled& one : sampled) ToProto(one, response->add_sampled());
    return absl::OkStatus();
  }

  // Before anything is allocated by the numbers of the request.
  absl::Status CheckModel(const internal::v1::AttentionServiceRunRequest& request) const {
    const uint32_t d_model = service_->runner_->config().d_model;
    if (request.d_model() != d_model) {
      return absl::InvalidArgumentError(
          absl::StrCat("d_model is ", request.d_model(), ", the model's is ", d_model));
    }
    return PayloadBytes(request.dtype(), request.n_rows(), d_model).status();
  }

  absl::Status CheckRows(const internal::v1::AttentionServiceRunRequest& request) const {
    return CheckShape(received_, request.dtype(), request.n_rows(), request.d_model());
  }
  // After that. x: [n_rows, d_model], out.
  void ReadRows(const internal::v1::AttentionServiceRunRequest& request, float* x) const {
    FloatReader(received_, request.dtype())
        .Read(x, static_cast<size_t>(request.n_rows()) * request.d_model());
  }

  AttentionService* const service_;
  std::shared_ptr<LaneSequences> lane_;
  FramePayload received_;
};

AttentionService::AttentionService(AttentionHost* host,
                                   const internal::v1::WorkerDescription& worker,
                                   AttentionObserver* observer)
    : host_(host),
      runner_(host->runner()),
      worker_(worker),
      observer_(observer),
      lanes_(host->cache()) {}

void AttentionService::Register(RpcServer* server) {
  AddUnary<internal::v1::AttentionServiceSetDrainingRequest,
           internal::v1::AttentionServiceSetDrainingResponse>(
      server, kService, "SetDraining",
      [this](std::shared_ptr<CallContext>,
             const internal::v1::AttentionServiceSetDrainingRequest& request,
             Respond<internal::v1::AttentionServiceSetDrainingResponse> respond) {
        if (absl::Status set = SetDrained(request.draining()); !set.ok()) return respond(set);
        internal::v1::AttentionServiceSetDrainingResponse response;
        *response.mutable_attention() = Describe();
        respond(response);
      });
  AddUnary<internal::v1::AttentionServiceDescribeRequest,
           internal::v1::AttentionServiceDescribeResponse>(
      server, kService, "Describe",
      [this](std::shared_ptr<CallContext>, const internal::v1::AttentionServiceDescribeRequest&,
             Respond<internal::v1::AttentionServiceDescribeResponse> respond) {
        respond(Describe());
      });
  AddUnary<internal::v1::FlushPrefixCacheRequest, internal::v1::FlushPrefixCacheResponse>(
      server, kService, "FlushPrefixCache",
      [this](std::shared_ptr<CallContext>, const internal::v1::FlushPrefixCacheRequest&,
             Respond<internal::v1::FlushPrefixCacheResponse> respond) {
        internal::v1::FlushPrefixCacheResponse response;
        response.set_n_kv_blocks(host_->cache()->Flush());
        LogEvent(LogLevel::kInfo, "prefix_cache_flushed", {{"kv_blocks", response.n_kv_blocks()}});
        respond(response);
      });
  AddStream(server, kService, "Run", this, StreamOptions());
}

absl::Status AttentionService::SetDrained(bool drained) {
  if (ending_ && !drained) {
    return absl::FailedPreconditionError("this attention-service is ending; start another one");
  }
  draining_ = drained;
  if (ending_) draining_ = true;  // it was told so just now
  LogEvent(LogLevel::kInfo, drained ? "drained_by_operator" : "resumed_by_operator", {});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StreamSession>> AttentionService::OnOpen(
    const std::shared_ptr<CallContext>&) {
  return std::make_unique<Session>(this);
}

grpc::ByteBuffer AttentionService::Refuse(const grpc::ByteBuffer& frame) {
  internal::v1::AttentionServiceRunRequest request;
  FramePayload payload;
  internal::v1::AttentionServiceRunResponse response;
  if (ReadFrame(frame, &request, &payload).ok()) *response.mutable_key() = request.key();
  response.mutable_refusal()->set_reason(internal::v1::REFUSAL_REASON_BUSY);
  response.mutable_refusal()->set_message("too many calls wait for this attention-service");
  return WriteMessage(response);
}

internal::v1::AttentionServiceDescribeResponse AttentionService::Describe() const {
  internal::v1::AttentionServiceDescribeResponse response;
  *response.mutable_worker() = worker_;
  response.mutable_worker()->set_ready(true);
  response.mutable_worker()->set_draining(draining_);
  response.mutable_worker()->set_ending(ending_);
  response.set_kv_block_tokens(KvShape::kBlockTokens);
  response.set_n_kv_blocks(runner_->cache()->n_blocks());
  response.set_n_kv_blocks_free(runner_->cache()->n_available());
  response.set_n_sequences(lanes_.n_sequences());
  response.set_max_sequence_tokens(host_->max_sequence_tokens());
  response.set_busy_nanos(busy_nanos_);
  return response;
}

}  // namespace gatefold

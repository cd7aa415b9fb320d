#include "router-service/dispatch/remote_attention_client.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/engine/attention_wire.h"

namespace gatefold {
namespace {

constexpr char kRunMethod[] = "/gatefold.internal.v1.AttentionService/Run";

absl::Status FromRefusal(const internal::v1::Refusal& refusal) {
  switch (refusal.reason()) {
    case internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE:
    case internal::v1::REFUSAL_REASON_STALE_EPOCH:
      return absl::AbortedError(refusal.message());
    case internal::v1::REFUSAL_REASON_KV_CACHE_FULL:
      return absl::ResourceExhaustedError(refusal.message());
    case internal::v1::REFUSAL_REASON_BAD_REQUEST:
      return absl::InternalError(refusal.message());
    default:
      return absl::UnavailableError(refusal.message());
  }
}

}  // namespace

RemoteAttentionClient::RemoteAttentionClient(const RemoteAttentionOptions& options,
                                             uint64_t router_id, int lane, int d_model,
                                             Directory* directory)
    : options_(options),
      router_id_(router_id),
      lane_(lane),
      d_model_(d_model),
      directory_(directory),
      streams_(options.wait),
      peers_(kMaxWorkers) {}

RemoteAttentionClient::~RemoteAttentionClient() = default;

internal::v1::RunAttentionRequest RemoteAttentionClient::Header(
    const Step& step, int layer, internal::v1::AttentionOperation operation) const {
  internal::v1::RunAttentionRequest request;
  request.mutable_key()->set_router_id(router_id_);
  request.mutable_key()->set_lane(lane_);
  request.mutable_key()->set_step(step.id);
  request.mutable_key()->set_layer(layer);
  request.set_operation(operation);
  request.set_dtype(options_.dtype);
  request.set_d_model(d_model_);
  return request;
}

std::vector<int> RemoteAttentionClient::LivePeers() {
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  std::vector<int> live;
  for (int i = 0; i < static_cast<int>(table->attention.size()); ++i) {
    const WorkerEntry& entry = table->attention[i];
    if (entry.state != WorkerEntry::State::kReady) continue;
    if (peers_[i].incarnation != entry.worker.incarnation()) {
      if (peers_[i].incarnation != 0) Lose(i);
      peers_[i].incarnation = entry.worker.incarnation();
      peers_[i].n_free_blocks = entry.attention.n_kv_blocks_free();
    }
    live.push_back(i);
  }
  return live;
}

absl::StatusOr<RemoteAttentionClient::Peer*> RemoteAttentionClient::Reach(int index) {
  Peer& peer = peers_[index];
  const std::string address = directory_->Table()->attention[index].address;
  if (peer.link == nullptr || peer.address != address) {
    peer.address = address;
    GF_ASSIGN_OR_RETURN(peer.link,
                        PeerLink::Create(&streams_, address, kRunMethod, options_.channels));
  }
  return &peer;
}

absl::Status RemoteAttentionClient::Open(const SequenceSpec& spec) {
  std::vector<int> live = LivePeers();
  if (live.empty()) return absl::UnavailableError("no attention-service is ready");
  std::stable_sort(live.begin(), live.end(), [this](int a, int b) {
    return peers_[a].n_free_blocks > peers_[b].n_free_blocks;
  });
  absl::Status status;
  for (int index : live) {
    std::vector<Call> calls(1);
    calls[0].peer = index;
    calls[0].request = Header(Step(), 0, internal::v1::ATTENTION_OPERATION_SEQUENCES);
    ToProto(spec, calls[0].request.add_open());
    status = RunCalls(&calls, nullptr, nullptr);
    if (status.ok()) {
      if (calls[0].response.opened_size() != 1) {
        status = absl::InternalError("the attention-service did not say whether it opened");
      } else if (calls[0].response.opened(0).reason() != internal::v1::REFUSAL_REASON_UNSPECIFIED) {
        status = FromRefusal(calls[0].response.opened(0));
      } else {
        home_[spec.id] = index;
        return absl::OkStatus();
      }
    }
  }
  return absl::IsAborted(status) ? absl::UnavailableError(status.message()) : status;
}

void RemoteAttentionClient::Close(SequenceId sequence) {
  const auto it = home_.find(sequence);
  if (it == home_.end()) return;
  peers_[it->second].closing.push_back(sequence);
  home_.erase(it);
}

void RemoteAttentionClient::Flush() {
  std::vector<Call> calls;
  for (int i = 0; i < static_cast<int>(peers_.size()); ++i) {
    if (peers_[i].closing.empty()) continue;
    Call& call = calls.emplace_back();
    call.peer = i;
    call.request = Header(Step(), 0, internal::v1::ATTENTION_OPERATION_SEQUENCES);
  }
  // Where it fails the stream is gone, and the sequences with it.
  if (!calls.empty()) (void)RunCalls(&calls, nullptr, nullptr);
}

// One call per peer that has some of the step's sequences.
absl::Status RemoteAttentionClient::AddSpans(const Step& step, std::vector<Call>* calls) const {
  std::vector<int> call_of_peer(peers_.size(), -1);
  int row = 0;
  for (const StepSpan& span : step.spans) {
    const auto home = home_.find(span.sequence);
    if (home == home_.end()) {
      return absl::AbortedError(absl::StrCat("sequence ", span.sequence, " lost its KV cache"));
    }
    int& index = call_of_peer[home->second];
    if (index < 0) {
      index = static_cast<int>(calls->size());
      calls->emplace_back().peer = home->second;
    }
    Call& call = (*calls)[index];
    ToProto(span, call.request.add_spans());
    call.rows.push_back({row, span.n_tokens});
    row += span.n_tokens;
  }
  return absl::OkStatus();
}

absl::Status RemoteAttentionClient::EmbedAndAttend(const Step& step, float* x) {
  LivePeers();
  std::vector<Call> calls;
  GF_RETURN_IF_ERROR(AddSpans(step, &calls));
  for (Call& call : calls) {
    call.request.MergeFrom(Header(step, 0, internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND));
    for (const auto& [first, count] : call.rows) {
      for (int i = 0; i < count; ++i) call.request.add_token_ids(step.token_ids[first + i]);
    }
  }
  return RunCalls(&calls, nullptr, x);
}

absl::Status RemoteAttentionClient::Attend(const Step& step, int layer, float* x) {
  std::vector<Call> calls;
  GF_RETURN_IF_ERROR(AddSpans(step, &calls));
  for (Call& call : calls) {
    call.request.MergeFrom(Header(step, layer, internal::v1::ATTENTION_OPERATION_ATTEND));
  }
  return RunCalls(&calls, x, x);
}

absl::StatusOr<std::vector<Sampled>> RemoteAttentionClient::Sample(const Step& step,
                                                                   const float* x) {
  std::vector<Call> calls;
  std::vector<int> call_of_peer(peers_.size(), -1);
  for (size_t i = 0; i < step.samples.size(); ++i) {
    const auto home = home_.find(step.samples[i].sequence);
    if (home == home_.end()) return absl::AbortedError("a sequence lost its KV cache");
    int& index = call_of_peer[home->second];
    if (index < 0) {
      index = static_cast<int>(calls.size());
      calls.emplace_back().peer = home->second;
      calls.back().request = Header(step, 0, internal::v1::ATTENTION_OPERATION_SAMPLE);
    }
    ToProto(step.samples[i], calls[index].request.add_samples());
    calls[index].rows.push_back({static_cast<int>(i), 1});
  }
  GF_RETURN_IF_ERROR(RunCalls(&calls, x, nullptr));
  std::vector<Sampled> sampled(step.samples.size());
  for (const Call& call : calls) {
    if (call.response.sampled_size() != static_cast<int>(call.rows.size())) {
      return absl::InternalError("the attention-service sampled another number of rows");
    }
    for (size_t i = 0; i < call.rows.size(); ++i) {
      sampled[call.rows[i].first] = FromProto(call.response.sampled(static_cast<int>(i)));
    }
  }
  return sampled;
}

absl::Status RemoteAttentionClient::RunCalls(std::vector<Call>* calls, const float* x_in,
                                             float* x_out) {
  const uint64_t first_token = next_token_;
  next_token_ += calls->size();
  absl::Status failure;
  const auto fail = [&](Call* call, const absl::Status& status) {
    if (call->done) return;
    call->done = true;
    failure = Annotate(status, directory_->Table()->attention[call->peer].address);
  };
  for (size_t i = 0; i < calls->size(); ++i) {
    const absl::Status sent = Send(&(*calls)[i], first_token + i, x_in);
    if (!sent.ok()) fail(&(*calls)[i], sent);
  }
  const absl::Time deadline = absl::Now() + options_.call_timeout;
  const auto pending = [&] {
    return std::any_of(calls->begin(), calls->end(), [](const Call& call) { return !call.done; });
  };
  while (pending()) {
    StreamEvent event;
    if (!streams_.WaitAny(deadline, &event)) {
      for (Call& call : *calls) {
        if (call.done) continue;
        Lose(call.peer);
        fail(&call, absl::AbortedError("does not answer"));
      }
    } else if (event.kind == StreamEvent::Kind::kAnswer && event.token >= first_token) {
      Call* call = &(*calls)[event.token - first_token];
      const absl::Status taken = TakeAnswer(call, event.answer, x_out);
      if (!taken.ok()) fail(call, taken);
    } else if (event.kind == StreamEvent::Kind::kBroken) {
      for (int i = 0; i < static_cast<int>(peers_.size()); ++i) {
        if (peers_[i].link.get() != event.stream->user_data) continue;
        Lose(i);
        for (Call& call : *calls) {
          if (call.peer == i) fail(&call, absl::AbortedError(event.status.message()));
        }
        break;
      }
    }
  }
  return failure;
}

absl::Status RemoteAttentionClient::Send(Call* call, uint64_t token, const float* x_in) {
  GF_ASSIGN_OR_RETURN(Peer * peer, Reach(call->peer));
  internal::v1::RunAttentionRequest& request = call->request;
  for (SequenceId id : std::exchange(peer->closing, {})) request.add_close(id);
  request.mutable_key()->set_incarnation(peer->incarnation);
  int n_rows = 0;
  for (const auto& [first, count] : call->rows) n_rows += count;
  request.set_n_rows(n_rows);
  PayloadBuffer rows;
  if (x_in != nullptr) {
    GF_ASSIGN_OR_RETURN(rows, MakePayload(options_.dtype, n_rows, d_model_));
    size_t at = 0;
    for (const auto& [first, count] : call->rows) {
      const size_t n = static_cast<size_t>(count) * d_model_;
      WriteFloats(options_.dtype,
                  absl::MakeConstSpan(x_in + static_cast<size_t>(first) * d_model_, n), at, &rows);
      at += n;
    }
  }
  const size_t bytes = static_cast<size_t>(n_rows) * d_model_ * WireDtypeBytes(options_.dtype);
  return peer->link->For(bytes)->Send(WriteFrame(request, rows), token);
}

absl::Status RemoteAttentionClient::TakeAnswer(Call* call, const grpc::ByteBuffer& answer,
                                               float* x_out) {
  internal::v1::RunAttentionResponse& response = call->response;
  GF_RETURN_IF_ERROR(ReadFrame(answer, &response, &payload_));
  peers_[call->peer].n_free_blocks = response.n_kv_blocks_free();
  if (response.has_refusal()) return FromRefusal(response.refusal());
  if (x_out != nullptr) {
    const uint32_t n_rows = call->request.n_rows();
    if (response.n_rows() != n_rows || response.d_model() != static_cast<uint32_t>(d_model_)) {
      return absl::InternalError(absl::StrCat("answered ", response.n_rows(), " rows of ",
                                              response.d_model(), ", wanted ", n_rows, " of ",
                                              d_model_));
    }
    GF_RETURN_IF_ERROR(CheckShape(payload_, response.dtype(), n_rows, d_model_));
    received_.resize(static_cast<size_t>(n_rows) * d_model_);
    payload_.ReadFloats(response.dtype(), received_.data());
    const float* from = received_.data();
    for (const auto& [first, count] : call->rows) {
      const size_t n = static_cast<size_t>(count) * d_model_;
      std::memcpy(x_out + static_cast<size_t>(first) * d_model_, from, n * sizeof(float));
      from += n;
    }
  }
  call->done = true;
  return absl::OkStatus();
}

void RemoteAttentionClient::Lose(int index) {
  Peer& peer = peers_[index];
  if (peer.link != nullptr) peer.link->Close();
  peer.closing.clear();
  std::erase_if(home_, [index](const auto& entry) { return entry.second == index; });
  directory_->SuspectAttention(index);
}

}  // namespace gatefold

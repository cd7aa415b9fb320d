#include "router-service/dispatch/remote_attention_client.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/engine/attention_wire.h"
#include "router-service/dispatch/placement_order.h"

namespace gatefold {
namespace {

// How often one who waits for an answer looks whether the service is still there for others.
constexpr absl::Duration kLookAround = absl::Milliseconds(250);
// Where a call was waited for in vain nothing is opened for so long: the next one would be waited
// for, too, by all sequences of the lane. The second is for where there is nothing else.
constexpr absl::Duration kLongRest = absl::Minutes(5), kShortRest = absl::Seconds(1);
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
                                             Directory* directory, PrefixAffinity* affinity)
    : options_(options),
      router_id_(router_id),
      lane_(lane),
      d_model_(d_model),
      directory_(directory),
      affinity_(affinity),
      streams_(options.wait),
      peers_(kMaxWorkers) {}

RemoteAttentionClient::~RemoteAttentionClient() = default;

internal::v1::AttentionServiceRunRequest RemoteAttentionClient::Header(
    const Step& step, int layer, internal::v1::AttentionOperation operation) const {
  internal::v1::AttentionServiceRunRequest request;
  request.mutable_key()->set_router_id(router_id_);
  request.mutable_key()->set_lane(lane_);
  request.mutable_key()->set_step(step.id);
  request.mutable_key()->set_layer(layer);
  request.set_operation(operation);
  request.set_dtype(options_.dtype);
  request.set_d_model(d_model_);
  request.set_traceparent(step.traceparent);
  return request;
}

std::vector<int> RemoteAttentionClient::LivePeers() {
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  std::vector<int> live;
  std::vector<bool> is_home(table->attention.size());
  for (const auto& [sequence, peer] : home_) is_home[peer] = true;
  for (int i = 0; i < static_cast<int>(table->attention.size()); ++i) {
    const WorkerEntry& entry = table->attention[i];
    if (entry.state != WorkerEntry::State::kReady) continue;
    if (peers_[i].incarnation != entry.worker.incarnation()) {
      if (peers_[i].incarnation != 0) Lose(i);
      is_home[i] = false;
      peers_[i].given_up = absl::InfinitePast();
      peers_[i].incarnation = entry.worker.incarnation();
    }
    // Of one that this lane does not call, the directory knows better what others have there.
    if (!is_home[i]) peers_[i].n_free_blocks = entry.attention.n_kv_blocks_free();
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

absl::StatusOr<int> RemoteAttentionClient::Open(const SequenceSpec& spec) {
  std::vector<uint64_t> names;
  if (options_.cache_domain != 0) {
    names = PrefixAffinity::Names(options_.cache_domain, spec.tokens);
  }
  absl::Status status = absl::UnavailableError(
      absl::StrCat("no attention-service is ready that can hold ", spec.n_positions, " positions"));
  std::vector<AttentionPlace> places;
  const std::vector<int> live = Awake(LivePeers());
  const std::shared_ptr<const RoutingTable> table = directory_->Table();  // no shorter than theirs
  for (int index : live) {
    places.push_back({index, peers_[index].incarnation, peers_[index].n_free_blocks,
                      static_cast<int>(table->attention[index].attention.max_sequence_tokens())});
  }
  for (int index : OrderPlaces(std::move(places), spec.n_positions, names, affinity_)) {
    const absl::StatusOr<int> opened = OpenAt(index, spec);
    if (opened.ok()) {
      home_[spec.id] = index;
      affinity_->Remember(names, peers_[index].incarnation);
      return opened;
    }
    status = opened.status();
  }
  return absl::IsAborted(status) ? absl::UnavailableError(status.message()) : status;
}

std::vector<int> RemoteAttentionClient::Awake(std::vector<int> live) const {
  const absl::Time now = absl::Now();
  const auto rests_for = [this, now](absl::Duration rest) {
    return [this, now, rest](int index) { return now < peers_[index].given_up + rest; };
  };
  const bool all_rest = std::all_of(live.begin(), live.end(), rests_for(kLongRest));
  std::erase_if(live, rests_for(all_rest ? kShortRest : kLongRest));
  return live;
}

absl::StatusOr<int> RemoteAttentionClient::OpenAt(int index, const SequenceSpec& spec) {
  std::vector<Call> calls(1);
  calls[0].peer = index;
  calls[0].request = Header(Step(), 0, internal::v1::ATTENTION_OPERATION_SEQUENCES);
  internal::v1::OpenSequence* open = calls[0].request.add_open();
  ToProto(spec, open);
  open->set_cache_domain(options_.cache_domain);
  GF_RETURN_IF_ERROR(RunCalls(&calls, nullptr, nullptr));
  const internal::v1::AttentionServiceRunResponse& response = calls[0].response;
  if (response.opened_size() != 1) {
    return absl::InternalError("the attention-service did not say whether it opened");
  }
  if (response.opened(0).reason() != internal::v1::REFUSAL_REASON_UNSPECIFIED) {
    return FromRefusal(response.opened(0));
  }
  const uint32_t n_cached = response.n_cached_size() == 1 ? response.n_cached(0) : 0;
  if (n_cached > open->max_cached()) {
    return absl::InternalError(absl::StrCat("the attention-service took ", n_cached,
                                            " positions from its cache, of at most ",
                                            open->max_cached()));
  }
  return static_cast<int>(n_cached);
}

void RemoteAttentionClient::Close(SequenceId sequence) {
  const auto it = home_.find(sequence);
  if (it == home_.end()) return;
  peers_[it->second].closing.push_back(sequence);
  home_.erase(it);
}

void RemoteAttentionClient::Flush() { FlushBut(std::vector<bool>(peers_.size())); }

void RemoteAttentionClient::FlushBut(const std::vector<bool>& later) {
  std::vector<Call> calls;
  for (int i = 0; i < static_cast<int>(peers_.size()); ++i) {
    if (peers_[i].closing.empty() || later[i]) continue;
    Call& call = calls.emplace_back();
    call.peer = i;
    call.request = Header(Step(), 0, internal::v1::ATTENTION_OPERATION_SEQUENCES);
  }
  // Where it fails the stream is gone, and the sequences with it.
  if (!calls.empty()) (void)RunCalls(&calls, nullptr, nullptr);
}

int RemoteAttentionClient::PlaceOf(SequenceId sequence) const {
  const auto home = home_.find(sequence);
  return home == home_.end() ? -1 : home->second;
}

bool RemoteAttentionClient::In(int peer, WorkerEntry::State state) const {
  return directory_->Table()->attention[peer].state == state;
}

bool RemoteAttentionClient::AnotherIsReady(int peer) const {
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  for (int i = 0; i < static_cast<int>(table->attention.size()); ++i) {
    if (i != peer && table->attention[i].state == WorkerEntry::State::kReady) return true;
  }
  return false;
}

void RemoteAttentionClient::FlushUncalled(const Step& step) {
  std::vector<bool> called(peers_.size());
  for (const StepSpan& span : step.spans) {
    if (const int home = PlaceOf(span.sequence); home >= 0) called[home] = true;
  }
  for (int i = 0; i < static_cast<int>(peers_.size()); ++i) {
    if (!peers_[i].closing.empty() && In(i, WorkerEntry::State::kDraining)) called[i] = false;
  }
  FlushBut(called);
}

absl::Status RemoteAttentionClient::FindHomes(const Step& step, bool any_live) {
  absl::Status status;
  for (const StepSpan& span : step.spans) {
    const auto home = home_.find(span.sequence);
    if (home == home_.end()) {
      status = absl::AbortedError(absl::StrCat("sequence ", span.sequence, " lost its KV cache"));
    } else if (any_live && In(home->second, WorkerEntry::State::kDraining)) {
      status = absl::AbortedError(absl::StrCat("sequence ", span.sequence, " leaves ",
                                               peers_[home->second].address, ", which drains"));
    } else {
      continue;
    }
    failed_.push_back({span.sequence, status});
  }
  return status;
}

std::vector<RemoteAttentionClient::Call> RemoteAttentionClient::SpanCalls(const Step& step) const {
  std::vector<Call> calls;
  std::vector<int> call_of_peer(peers_.size(), -1);
  int row = 0;
  for (const StepSpan& span : step.spans) {
    const int home = home_.at(span.sequence);
    int& index = call_of_peer[home];
    if (index < 0) {
      index = static_cast<int>(calls.size());
      calls.emplace_back().peer = home;
    }
    Call& call = calls[index];
    ToProto(span, call.request.add_spans());
    call.sequences.push_back(span.sequence);
    call.rows.push_back({row, span.n_tokens});
    row += span.n_tokens;
  }
  return calls;
}

absl::Status RemoteAttentionClient::EmbedAndAttend(const Step& step, float* x) {
  failed_.clear();
  FlushUncalled(step);
  GF_RETURN_IF_ERROR(FindHomes(step, !Awake(LivePeers()).empty()));
  std::vector<Call> calls = SpanCalls(step);
  for (Call& call : calls) {
    call.request.MergeFrom(Header(step, 0, internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND));
    for (const auto& [first, count] : call.rows) {
      for (int i = 0; i < count; ++i) call.request.add_token_ids(step.token_ids[first + i]);
    }
  }
  return RunCalls(&calls, nullptr, x);
}

absl::Status RemoteAttentionClient::Attend(const Step& step, int layer, float* x) {
  failed_.clear();
  GF_RETURN_IF_ERROR(FindHomes(step, false));
  std::vector<Call> calls = SpanCalls(step);
  for (Call& call : calls) {
    call.request.MergeFrom(Header(step, layer, internal::v1::ATTENTION_OPERATION_ATTEND));
  }
  return RunCalls(&calls, x, x);
}

absl::StatusOr<std::vector<Sampled>> RemoteAttentionClient::Sample(const Step& step,
                                                                   const float* x) {
  failed_.clear();
  GF_RETURN_IF_ERROR(FindHomes(step, false));
  std::vector<Call> calls;
  std::vector<int> call_of_peer(peers_.size(), -1);
  for (size_t i = 0; i < step.samples.size(); ++i) {
    const int home = home_.at(step.samples[i].sequence);
    int& index = call_of_peer[home];
    if (index < 0) {
      index = static_cast<int>(calls.size());
      calls.emplace_back().peer = home;
      calls.back().request = Header(step, 0, internal::v1::ATTENTION_OPERATION_SAMPLE);
    }
    ToProto(step.samples[i], calls[index].request.add_samples());
    calls[index].sequences.push_back(step.samples[i].sequence);
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
    failure = Annotate(status, directory_->Table()->attention[call->peer].address);
    Fail(call, failure);
  };
  for (size_t i = 0; i < calls->size(); ++i) {
    Call* const call = &(*calls)[i];
    const absl::Status sent = Send(call, first_token + i, x_in);
    if (absl::IsUnavailable(sent)) {  // its stream broke; told only to who waits, and nobody might
      Lose(call->peer);
      fail(call, absl::AbortedError(sent.message()));
    } else if (!sent.ok()) {
      fail(call, sent);
    }
  }
  const absl::Time deadline = absl::Now() + options_.call_timeout;
  const auto pending = [&] {
    return std::any_of(calls->begin(), calls->end(), [](const Call& call) { return !call.done; });
  };
  while (pending()) {
    StreamEvent event;
    if (!streams_.WaitAny(std::min(deadline, absl::Now() + kLookAround), &event)) {
      const absl::Status given_up = GiveUp(calls, /*all=*/absl::Now() >= deadline);
      if (!given_up.ok()) failure = given_up;
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

void RemoteAttentionClient::Fail(Call* call, const absl::Status& status) {
  call->done = true;
  const auto& starved = call->response.starved();
  if (absl::IsResourceExhausted(status) && !starved.empty()) {
    call->sequences.assign(starved.begin(), starved.end());
  }
  for (SequenceId sequence : call->sequences) failed_.push_back({sequence, status});
}

absl::Status RemoteAttentionClient::GiveUp(std::vector<Call>* calls, bool all) {
  absl::Status status;
  for (Call& call : *calls) {
    if (call.done) continue;
    // Without another service to go to it is better to wait: it may only be slow.
    const bool hung = In(call.peer, WorkerEntry::State::kUnreachable) && AnotherIsReady(call.peer);
    if (!all && !hung) continue;
    Lose(call.peer);
    if (all) peers_[call.peer].given_up = absl::Now();
    status = absl::AbortedError(absl::StrCat(peers_[call.peer].address, " does not answer"));
    Fail(&call, status);
  }
  return status;
}

absl::Status RemoteAttentionClient::Send(Call* call, uint64_t token, const float* x_in) {
  GF_ASSIGN_OR_RETURN(Peer * peer, Reach(call->peer));
  internal::v1::AttentionServiceRunRequest& request = call->request;
  for (SequenceId id : std::exchange(peer->closing, {})) request.add_close(id);
  request.mutable_key()->set_incarnation(peer->incarnation);
  request.mutable_key()->set_generation(peer->generation);
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
  internal::v1::AttentionServiceRunResponse& response = call->response;
  GF_RETURN_IF_ERROR(ReadFrame(answer, &response, &payload_));
  Peer& peer = peers_[call->peer];
  peer.n_free_blocks = response.n_kv_blocks_free();
  if (response.draining() && In(call->peer, WorkerEntry::State::kReady)) {
    directory_->SuspectAttention(call->peer);  // it is news to the directory
  }
  if (response.has_refusal()) {
    // Perhaps nothing of the call happened: they are to be closed with the next one.
    peer.closing.insert(peer.closing.end(), call->request.close().begin(),
                        call->request.close().end());
    const absl::Status refused = FromRefusal(response.refusal());
    if (absl::IsAborted(refused)) directory_->SuspectAttention(call->peer);
    return refused;
  }
  if (x_out != nullptr) {
    const uint32_t n_rows = call->request.n_rows();
    if (response.n_rows() != n_rows || response.d_model() != static_cast<uint32_t>(d_model_)) {
      return absl::InternalError(absl::StrCat("answered ", response.n_rows(), " rows of ",
                                              response.d_model(), ", wanted ", n_rows, " of ",
                                              d_model_));
    }
    GF_RETURN_IF_ERROR(CheckShape(payload_, response.dtype(), n_rows, d_model_));
    FloatReader reader(payload_, response.dtype());
    for (const auto& [first, count] : call->rows) {
      reader.Read(x_out + static_cast<size_t>(first) * d_model_,
                  static_cast<size_t>(count) * d_model_);
    }
  }
  call->done = true;
  return absl::OkStatus();
}

void RemoteAttentionClient::Lose(int index) {
  Peer& peer = peers_[index];
  if (peer.link != nullptr) peer.link->Close();
  peer.closing.clear();
  ++peer.generation;  // it may not know yet that the stream has ended
  std::erase_if(home_, [index](const auto& entry) { return entry.second == index; });
  directory_->SuspectAttention(index);
}

}  // namespace gatefold

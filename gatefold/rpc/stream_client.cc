#include "gatefold/rpc/stream_client.h"

#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/rpc/status.h"

namespace gatefold {

// Everything gRPC still refers to while an operation is under way; outlives a closed PeerStream.
// Operations that may run at once: one write (the start of the call counts as one), one read; and
// at last, alone, the one that fetches the status.
struct PeerStream::Call {
  enum class Operation { kWrite, kRead, kFinish };
  struct Tag {
    Call* call;
    Operation operation;
  };
  struct Unsent {
    grpc::ByteBuffer frame;
    bool last;
  };

  PeerStream* owner = nullptr;  // null once closed
  absl::Time opened = absl::Now();
  std::function<void(absl::StatusCode, absl::Duration)> on_end;
  grpc::ClientContext context;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> rpc;
  Tag write_tag{this, Operation::kWrite};
  Tag read_tag{this, Operation::kRead};
  Tag finish_tag{this, Operation::kFinish};
  std::deque<Unsent> unsent;
  grpc::ByteBuffer answer;
  grpc::Status status;
  bool writing = false;
  bool reading = false;
  bool read_wanted = false;  // stands in the list of reads to start
  bool write_failed = false;
  bool finishing = false;
  bool finished = false;

  // gRPC refers to nothing of this any more. The status may come before the failure of a write.
  bool over() const { return finished && !writing && !reading; }

  void Write(const Unsent& unsent_frame) {
    grpc::WriteOptions options;
    if (unsent_frame.last) options.set_last_message();
    writing = true;
    rpc->Write(unsent_frame.frame, options, &write_tag);
  }
  void Read() {
    reading = true;
    rpc->Read(&answer, &read_tag);
  }
  void Finish() {
    finishing = true;
    rpc->Finish(&status, &finish_tag);
  }
};

class StreamSet::Impl {
 public:
  explicit Impl(const WaitPolicy& policy) : policy_(policy) {}
  ~Impl();

  PeerStream* Open(const std::shared_ptr<grpc::Channel>& channel, absl::string_view method,
                   const OpenOptions& options);
  void Close(PeerStream* stream);
  bool WaitAny(absl::Time deadline, StreamEvent* event);
  void Wake();
  size_t n_streams() const { return streams_.size(); }

 private:
  using Call = PeerStream::Call;

  // Handles one completion; false if none came. `reported`: `event` was filled in.
  bool Step(absl::Time deadline, StreamEvent* event, bool* reported);
  // True if `event` was filled in.
  bool Handle(const Call::Tag& tag, bool ok, StreamEvent* event);
  void HandleWrite(Call* call, bool ok);
  bool HandleRead(Call* call, bool ok, StreamEvent* event);
  bool ReportIfOver(Call* call, StreamEvent* event);
  void StartWantedReads();
  void WantRead(Call* call);

  const WaitPolicy policy_;
  grpc::CompletionQueue queue_;
  absl::flat_hash_map<PeerStream*, std::unique_ptr<PeerStream>> streams_;
  absl::flat_hash_map<Call*, std::unique_ptr<Call>> closed_;  // until gRPC has let go of them
  // After an answer the next read waits for WaitAny or Send: there it runs while the peer works.
  std::vector<Call*> wanted_reads_;

  absl::Mutex wake_mu_;
  bool waking_ ABSL_GUARDED_BY(wake_mu_) = false;
  grpc::Alarm alarm_ ABSL_GUARDED_BY(wake_mu_);
};

PeerStream* StreamSet::Impl::Open(const std::shared_ptr<grpc::Channel>& channel,
                                  absl::string_view method, const OpenOptions& options) {
  auto stream = std::unique_ptr<PeerStream>(new PeerStream);
  stream->call_ = std::make_unique<Call>();
  Call* call = stream->call_.get();
  call->owner = stream.get();
  call->on_end = options.on_end;
  stream->traffic_ = options.traffic;
  if (options.deadline != absl::InfiniteFuture()) {
    call->context.set_deadline(absl::ToChronoTime(options.deadline));
  }
  for (const auto& [key, value] : options.metadata) call->context.AddMetadata(key, value);
  grpc::GenericStub stub(channel);
  call->rpc = stub.PrepareCall(&call->context, std::string(method), &queue_);
  GF_CHECK(call->rpc != nullptr);
  call->writing = true;
  call->rpc->StartCall(&call->write_tag);
  PeerStream* const result = stream.get();
  streams_.emplace(result, std::move(stream));
  return result;
}

void StreamSet::Impl::Close(PeerStream* stream) {
  const auto found = streams_.find(stream);
  GF_CHECK(found != streams_.end());
  std::unique_ptr<Call> call = std::move(stream->call_);
  streams_.erase(found);
  if (call->over()) return;
  call->owner = nullptr;
  call->unsent.clear();
  call->context.TryCancel();
  WantRead(call.get());  // it fails, and all ends
  Call* const key = call.get();
  closed_.emplace(key, std::move(call));
}

void StreamSet::Impl::WantRead(Call* call) {
  if (call->read_wanted || call->reading || call->finishing || call->finished) return;
  call->read_wanted = true;
  wanted_reads_.push_back(call);
}

void StreamSet::Impl::StartWantedReads() {
  for (Call* call : wanted_reads_) {
    call->read_wanted = false;
    if (call->reading || call->finishing) continue;
    call->Read();
  }
  wanted_reads_.clear();
}

bool StreamSet::Impl::WaitAny(absl::Time deadline, StreamEvent* event) {
  bool reported = false;
  while (!reported) {
    if (!Step(deadline, event, &reported)) return false;
  }
  return true;
}

bool StreamSet::Impl::Step(absl::Time deadline, StreamEvent* event, bool* reported) {
  StartWantedReads();
  void* tag = nullptr;
  bool ok = false;
  const WaitResult result = WaitForEvent(&queue_, policy_, deadline, &tag, &ok);
  if (result == WaitResult::kTimeout) return false;
  GF_CHECK(result == WaitResult::kEvent);
  if (tag == this) {
    absl::MutexLock lock(&wake_mu_);
    waking_ = false;
    *event = StreamEvent();
    event->kind = StreamEvent::Kind::kWoken;
    *reported = true;
  } else {
    *reported = Handle(*static_cast<Call::Tag*>(tag), ok, event);
  }
  return true;
}

bool StreamSet::Impl::Handle(const Call::Tag& tag, bool ok, StreamEvent* event) {
  Call* const call = tag.call;
  switch (tag.operation) {
    case Call::Operation::kWrite:
      HandleWrite(call, ok);
      break;
    case Call::Operation::kRead:
      if (HandleRead(call, ok, event)) return true;
      break;
    case Call::Operation::kFinish:
      call->finishing = false;
      call->finished = true;
      break;
  }
  return ReportIfOver(call, event);
}

void StreamSet::Impl::HandleWrite(Call* call, bool ok) {
  call->writing = false;
  if (!ok) {
    // The stream is over. What the peer answered before is still there to be read.
    call->write_failed = true;
    call->unsent.clear();
  } else if (!call->unsent.empty()) {
    const Call::Unsent next = std::move(call->unsent.front());
    call->unsent.pop_front();
    call->Write(next);
  }
  WantRead(call);
}

bool StreamSet::Impl::HandleRead(Call* call, bool ok, StreamEvent* event) {
  call->reading = false;
  if (!ok) {
    call->unsent.clear();
    call->Finish();
    return false;
  }
  WantRead(call);
  PeerStream* const stream = call->owner;
  if (stream == nullptr) return false;
  event->kind = StreamEvent::Kind::kAnswer;
  event->stream = stream;
  event->answer.Clear();
  event->answer.Swap(&call->answer);
  event->status = absl::OkStatus();
  event->token = 0;
  if (!stream->in_flight_.empty()) {
    event->token = stream->in_flight_.front();
    stream->in_flight_.pop_front();
  }
  if (PeerTraffic* const traffic = stream->traffic_.get()) {
    traffic->bytes_received += event->answer.Length();
    if (!stream->sent_at_.empty()) {
      ++traffic->n_answers;
      traffic->answer_nanos += absl::ToInt64Nanoseconds(absl::Now() - stream->sent_at_.front());
      stream->sent_at_.pop_front();
    }
  }
  return true;
}

bool StreamSet::Impl::ReportIfOver(Call* call, StreamEvent* event) {
  if (!call->over()) return false;
  const absl::Status status = FromGrpcStatus(call->status);
  if (call->on_end) call->on_end(status.code(), absl::Now() - call->opened);
  PeerStream* const stream = call->owner;
  if (stream == nullptr) {
    closed_.erase(call);
    return false;
  }
  stream->broken_ = true;
  *event = StreamEvent();
  event->kind = StreamEvent::Kind::kBroken;
  event->stream = stream;
  event->status = status;
  return true;
}

void StreamSet::Impl::Wake() {
  absl::MutexLock lock(&wake_mu_);
  if (waking_) return;
  waking_ = true;
  alarm_.Set(&queue_, gpr_now(GPR_CLOCK_MONOTONIC), this);
}

StreamSet::Impl::~Impl() {
  while (!streams_.empty()) Close(streams_.begin()->first);
  StreamEvent event;
  bool reported;
  while (!closed_.empty()) Step(absl::InfiniteFuture(), &event, &reported);
  queue_.Shutdown();
  void* tag;
  bool ok;
  while (queue_.Next(&tag, &ok)) {
  }
}

StreamSet::StreamSet(const WaitPolicy& policy) : impl_(std::make_unique<Impl>(policy)) {}
StreamSet::~StreamSet() = default;

PeerStream* StreamSet::Open(const std::shared_ptr<grpc::Channel>& channel, absl::string_view method,
                            const OpenOptions& options) {
  return impl_->Open(channel, method, options);
}
PeerStream* StreamSet::Open(const std::shared_ptr<grpc::Channel>& channel,
                            absl::string_view method) {
  return impl_->Open(channel, method, OpenOptions());
}
void StreamSet::Close(PeerStream* stream) { impl_->Close(stream); }
bool StreamSet::WaitAny(absl::Time deadline, StreamEvent* event) {
  return impl_->WaitAny(deadline, event);
}
void StreamSet::Wake() { impl_->Wake(); }
size_t StreamSet::n_streams() const { return impl_->n_streams(); }

PeerStream::~PeerStream() = default;

absl::Status PeerStream::Send(grpc::ByteBuffer frame, uint64_t token) {
  return Send(std::move(frame), token, false);
}
absl::Status PeerStream::SendLast(grpc::ByteBuffer frame, uint64_t token) {
  return Send(std::move(frame), token, true);
}

absl::Status PeerStream::Send(grpc::ByteBuffer frame, uint64_t token, bool last) {
  Call* const call = call_.get();
  if (broken_ || call->write_failed || call->finishing || call->finished) {
    return absl::UnavailableError("the stream is broken");
  }
  if (in_flight_.size() >= static_cast<size_t>(kMaxInFlight)) {
    return absl::ResourceExhaustedError(
        absl::StrCat(in_flight_.size(), " calls wait for an answer, at most ", kMaxInFlight));
  }
  in_flight_.push_back(token);
  if (traffic_ != nullptr) {
    traffic_->bytes_sent += frame.Length();
    sent_at_.push_back(absl::Now());
  }
  if (call->writing) {
    call->unsent.push_back({std::move(frame), last});
    return absl::OkStatus();
  }
  call->Write({std::move(frame), last});
  if (!call->reading) call->Read();
  return absl::OkStatus();
}

void PeerStream::Cancel() { call_->context.TryCancel(); }

}  // namespace gatefold

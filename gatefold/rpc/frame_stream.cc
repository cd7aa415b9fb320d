#include "gatefold/rpc/frame_stream.h"

#include <pthread.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/errors.h"

namespace gatefold {
namespace {

// A size says little about the work: 2 KB may be the token ids of a long chunk. So what frames took
// decides. A hand-off to a worker is a few percent of the longest that counts as quick.
constexpr absl::Duration kQuick = absl::Milliseconds(1);
constexpr int kToProve = 64;  // after a slow one; of a kind that is new, one

}  // namespace

FrameWorkers::FrameWorkers(const StreamOptions& options) : options_(options) {
  n_to_prove_.fill(1);
  for (int i = 0; i < options.n_workers; ++i) {
    threads_.emplace_back([this, i] {
      pthread_setname_np(pthread_self(), absl::StrCat("rpc-work-", i).c_str());
      Work();
    });
  }
}

FrameWorkers::~FrameWorkers() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool FrameWorkers::Enter(size_t bytes, bool small) {
  absl::MutexLock lock(&mu_);
  if (n_bytes_ + bytes > options_.max_queued_bytes ||
      (!small && n_large_ >= options_.max_queued_frames)) {
    return false;
  }
  ++n_frames_;
  n_large_ += !small;
  n_bytes_ += bytes;
  return true;
}

void FrameWorkers::Leave(size_t bytes, bool small) {
  absl::MutexLock lock(&mu_);
  --n_frames_;
  n_large_ -= !small;
  n_bytes_ -= bytes;
}

void FrameWorkers::Schedule(std::shared_ptr<FrameStream> stream) {
  absl::MutexLock lock(&mu_);
  ready_.push_back(std::move(stream));
}

bool FrameWorkers::WouldBeQuick(int kind) const {
  if (options_.n_workers == 0) return true;
  absl::MutexLock lock(&mu_);
  return n_frames_ == 0 && n_to_prove_.at(kind) == 0;
}

void FrameWorkers::Took(int kind, absl::Duration time) {
  absl::MutexLock lock(&mu_);
  int& n = n_to_prove_.at(kind);
  n = time > kQuick ? kToProve : std::max(n - 1, 0);
}

bool FrameWorkers::OpenStream() {
  absl::MutexLock lock(&mu_);
  if (n_streams_ >= options_.max_streams) return false;
  ++n_streams_;
  return true;
}

void FrameWorkers::CloseStream() {
  absl::MutexLock lock(&mu_);
  --n_streams_;
}

void FrameWorkers::Work() {
  for (;;) {
    std::shared_ptr<FrameStream> stream;
    {
      absl::MutexLock lock(&mu_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || !ready_.empty();
      };
      mu_.Await(absl::Condition(&ready));
      if (ready_.empty()) return;
      stream = std::move(ready_.front());
      ready_.pop_front();
    }
    stream->RunOne();
  }
}

void FrameStream::Start() { Settle(); }

void FrameStream::OnRead(bool ok, grpc::ByteBuffer message) {
  bool at_once = false;
  int kind = 0;
  {
    absl::MutexLock lock(&mu_);
    reading_ = false;
    if (!ok || ending_) {
      End(absl::OkStatus());
    } else {
      ++n_frames_;
      const bool small = session_->IsSmall(message);
      kind = session_->KindOf(message);
      at_once = small && !computing_ && waiting_.empty() && workers_->WouldBeQuick(kind);
      if (at_once) {
        computing_ = true;
      } else {
        Enqueue(std::move(message), kind, small);
      }
    }
  }
  if (at_once) Compute(std::move(message), kind, absl::Now());
  Settle();
}

void FrameStream::Compute(grpc::ByteBuffer frame, int kind, absl::Time received) {
  const absl::Time start = absl::Now();
  absl::StatusOr<grpc::ByteBuffer> answer = session_->OnFrame(std::move(frame), received);
  workers_->Took(kind, absl::Now() - start);
  Answer(std::move(answer));
}

void FrameStream::Enqueue(grpc::ByteBuffer frame, int kind, bool small) {
  Waiting waiting{grpc::ByteBuffer(), absl::Now(), kind, small};
  if (workers_->Enter(frame.Length(), small)) {
    waiting.frame = std::move(frame);
  } else {
    waiting.frame = handler_->Refuse(frame);
    waiting.refused = true;
  }
  waiting_.push_back(std::move(waiting));
}

void FrameStream::RunOne() {
  std::optional<Waiting> work;
  {
    absl::MutexLock lock(&mu_);
    scheduled_ = false;
    if (!waiting_.empty()) {  // else it was cancelled meanwhile
      work = std::move(waiting_.front());
      waiting_.pop_front();
      computing_ = true;
    }
  }
  if (work.has_value()) {
    const size_t bytes = work->frame.Length();
    Compute(std::move(work->frame), work->kind, work->received);
    workers_->Leave(bytes, work->small);
  }
  Settle();
}

void FrameStream::Answer(absl::StatusOr<grpc::ByteBuffer> answer) {
  absl::MutexLock lock(&mu_);
  computing_ = false;
  if (answer.ok()) {
    answers_.push_back(*std::move(answer));
  } else {
    DropWaiting();
    End(answer.status());
  }
}

void FrameStream::DropWaiting() {
  for (const Waiting& waiting : waiting_) {
    if (!waiting.refused) workers_->Leave(waiting.frame.Length(), waiting.small);
  }
  waiting_.clear();
}

void FrameStream::End(const absl::Status& status) {
  if (ending_) return;
  ending_ = true;
  end_status_ = status;
}

std::unique_ptr<StreamSession> FrameStream::Pump() {
  if (ended_) return nullptr;
  while (!computing_ && !scheduled_ && !waiting_.empty() && waiting_.front().refused) {
    answers_.push_back(std::move(waiting_.front().frame));
    waiting_.pop_front();
  }
  if (!writing_ && !answers_.empty()) {
    writing_ = true;
    call_->Write(answers_.front());
    answers_.pop_front();
  }
  if (!reading_ && !ending_ && n_frames_ < max_frames_) {
    reading_ = true;
    call_->Read();
  }
  if (!computing_ && !scheduled_ && !waiting_.empty()) {
    scheduled_ = true;
    workers_->Schedule(shared_from_this());
  }
  if (!ending_ || computing_ || scheduled_ || writing_ || !waiting_.empty() || !answers_.empty()) {
    return nullptr;
  }
  ended_ = true;
  return std::move(session_);
}

void FrameStream::Settle() {
  std::unique_ptr<StreamSession> session;
  {
    absl::MutexLock lock(&mu_);
    session = Pump();
  }
  if (session == nullptr) return;
  session.reset();
  absl::MutexLock lock(&mu_);
  call_->Finish(end_status_);
}

void FrameStream::OnWritten(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    --n_frames_;
    if (!ok) Abandon();
  }
  Settle();
}

void FrameStream::OnCancelled() {
  {
    absl::MutexLock lock(&mu_);
    Abandon();
  }
  Settle();
}

void FrameStream::Abandon() {
  DropWaiting();
  answers_.clear();
  End(absl::CancelledError("the client is gone"));
}

void FrameStream::OnShutdown() {
  {
    absl::MutexLock lock(&mu_);
    End(Draining(absl::ZeroDuration()));
  }
  Settle();
}

void FrameStream::OnReleased() {
  {
    absl::MutexLock lock(&mu_);
    GF_CHECK(ended_);
    call_ = nullptr;
  }
  workers_->CloseStream();
}

}  // namespace gatefold

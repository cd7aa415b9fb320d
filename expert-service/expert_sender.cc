#include "expert-service/expert_sender.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "expert-service/expert_transfer.h"
#include "gatefold/base/background_thread.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

// One expert on its way to one shard.
struct ExpertSender::Transfer {
  // What the poll thread tells the sending one. Shared: callbacks may come late.
  struct Signals {
    absl::Mutex mu;
    bool writable ABSL_GUARDED_BY(mu) = false;
    bool cancelled ABSL_GUARDED_BY(mu) = false;
    bool Any() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return writable || cancelled; }
  };

  ExpertId id;
  ExpertLayout layout;
  std::shared_ptr<Stream> stream;
  std::shared_ptr<Signals> signals = std::make_shared<Signals>();
  std::shared_ptr<const HeldExpert> held;  // where the rows come from it
  ExpertRowReader rows;
};

ExpertSender::ExpertSender(const ExpertCatalog* catalog, const ExpertStore* store, Options options)
    : catalog_(catalog), store_(store), options_(std::move(options)) {
  for (int i = 0; i < options_.n_threads; ++i) threads_.emplace_back([this] { Run(); });
}

ExpertSender::~ExpertSender() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

MethodOptions ExpertSender::Method() {
  MethodOptions options;
  options.max_request_bytes = 4096;
  options.max_queued_messages = 16;  // 4 MiB: both ends are slow to wake where others compute
  return options;
}

void ExpertSender::Send(std::shared_ptr<CallContext> call,
                        const internal::v1::FetchExpertRequest& request,
                        std::shared_ptr<Stream> stream) {
  if (absl::Status checked = CheckFetchRequest(request, *catalog_); !checked.ok()) {
    return stream->Finish(checked);
  }
  auto transfer = std::make_unique<Transfer>();
  transfer->id = {static_cast<int>(request.layer()), static_cast<int>(request.expert())};
  transfer->layout = catalog_->Layout(transfer->id.layer, transfer->id.expert);
  if (absl::Status found = Rows(transfer.get()); !found.ok()) return stream->Finish(found);
  stream->OnWritable([signals = transfer->signals] {
    absl::MutexLock lock(&signals->mu);
    signals->writable = true;
  });
  call->OnCancel([signals = transfer->signals] {
    absl::MutexLock lock(&signals->mu);
    signals->cancelled = true;
  });
  transfer->stream = stream;
  absl::MutexLock lock(&mu_);
  if (n_transfers_ >= options_.n_threads) {
    return stream->Finish(absl::ResourceExhaustedError(
        absl::StrCat("this shard sends ", options_.n_threads, " experts at a time")));
  }
  ++n_transfers_;
  waiting_.push_back(std::move(transfer));
}

// What is held is in memory; the checkpoint's pages may be on a disk.
absl::Status ExpertSender::Rows(Transfer* transfer) const {
  const auto [layer, expert] = transfer->id;
  std::shared_ptr<const HeldExpert> held = store_->Find(transfer->id);
  if (held != nullptr && sends_held()) {
    transfer->held = std::move(held);
    transfer->rows = [held = transfer->held.get()](ExpertPart part, DType dtype, int64_t row,
                                                   void* to) {
      held->CopyRow(part, dtype, row, to);
    };
    return absl::OkStatus();
  }
  if (has_checkpoint()) {
    transfer->rows = RowsOf(catalog_->weights()->Expert(layer, expert));
    return absl::OkStatus();
  }
  const std::string name = absl::StrCat("expert ", expert, " of layer ", layer);
  if (held != nullptr) {
    return absl::UnimplementedError(
        absl::StrCat(name, " is quantised or on a device, and there is no checkpoint here"));
  }
  return absl::NotFoundError(absl::StrCat(name, " is not held, and there is no checkpoint here"));
}

void ExpertSender::Run() {
  StepBackForOthers();
  absl::MutexLock lock(&mu_);
  while (true) {
    const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return stopping_ || !waiting_.empty();
    };
    mu_.Await(absl::Condition(&wanted));
    if (waiting_.empty()) return;
    std::unique_ptr<Transfer> transfer = std::move(waiting_.front());
    waiting_.pop_front();
    mu_.Unlock();
    transfer->stream->Finish(Send(transfer.get()));
    if (transfer->held == nullptr)
      catalog_->weights()->DropExpert(transfer->id.layer, transfer->id.expert);
    transfer.reset();  // the expert may have been dropped meanwhile: its memory goes back here
    mu_.Lock();
    --n_transfers_;
  }
}

absl::Status ExpertSender::Send(Transfer* transfer) const {
  const ExpertLayout& layout = transfer->layout;
  const absl::Time deadline = absl::Now() + TransferLimit(layout.size_bytes());
  Transfer::Signals& signals = *transfer->signals;
  internal::v1::FetchExpertResponse message = MakeFetchHeader(*catalog_, layout);
  uint64_t at = 0;
  while (true) {
    {
      absl::MutexLock lock(&signals.mu);
      signals.writable = false;  // what comes from now on is about this message
    }
    const StreamWrite written = transfer->stream->Write(message);
    if (written == StreamWrite::kClosed) return absl::CancelledError("the receiver is gone");
    if (written == StreamWrite::kFull) {
      absl::MutexLock lock(&signals.mu);
      signals.mu.AwaitWithDeadline(absl::Condition(&signals, &Transfer::Signals::Any),
                                   std::min(deadline, absl::Now() + options_.stall_timeout));
      if (signals.cancelled) return absl::CancelledError("the receiver is gone");
      if (!signals.writable) return absl::DeadlineExceededError("the receiver is too slow");
      continue;
    }
    if (options_.on_piece) options_.on_piece();
    if (at == layout.size_bytes()) break;
    const size_t n = std::min<uint64_t>(kSentPieceBytes, layout.size_bytes() - at);
    message.Clear();
    message.mutable_image()->resize(n);
    layout.Read(transfer->rows, at, n, message.mutable_image()->data());
    at += n;
  }
  return absl::OkStatus();
}

}  // namespace gatefold

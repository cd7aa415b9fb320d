#include "router-service/gateway/stream_pump.h"

#include <utility>

namespace gatefold {

void StreamPump::Start(std::unique_ptr<Generation> generation) {
  {
    absl::MutexLock lock(&mu_);
    generation_ = std::move(generation);
    stream_->OnWritable([weak = weak_from_this()] {
      if (auto pump = weak.lock()) pump->Pump();
    });
  }
  Pump();
}

void StreamPump::Pump() {
  std::unique_ptr<Generation> over;  // goes after the lock, since that cancels what is left of it
  absl::MutexLock lock(&mu_);
  if (generation_ != nullptr && PumpAll()) over = std::move(generation_);
}

bool StreamPump::PumpAll() {
  while (true) {
    if (!unwritten_.has_value()) {
      Generation::Event event;
      absl::Status status;
      switch (generation_->Take(&event, &status)) {
        case Generation::Taken::kNothingYet:
          return false;
        case Generation::Taken::kEnd:
          stream_->Finish(status);
          return true;
        case Generation::Taken::kEvent:
          unwritten_ = std::move(event);
      }
    }
    switch (stream_->Write(*unwritten_)) {
      case StreamWrite::kQueued:
        unwritten_.reset();
        break;
      case StreamWrite::kFull:
        return false;
      case StreamWrite::kClosed:
        return true;
    }
  }
}

}  // namespace gatefold

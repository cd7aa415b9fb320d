#include "cli/interrupts.h"

#include <utility>

namespace gatefold::cli {

Interrupts::Scope::Scope(Interrupts* interrupts, std::function<void()> stop)
    : interrupts_(interrupts) {
  absl::MutexLock lock(&interrupts_->mu_);
  if (interrupts_->raised_) stop();
  place_ = interrupts_->stops_.insert(interrupts_->stops_.end(), std::move(stop));
}

Interrupts::Scope::~Scope() {
  absl::MutexLock lock(&interrupts_->mu_);
  interrupts_->stops_.erase(place_);
}

bool Interrupts::Raise() {
  absl::MutexLock lock(&mu_);
  raised_ = true;
  for (const std::function<void()>& stop : stops_) stop();
  return !stops_.empty();
}

bool Interrupts::Pause(absl::Duration duration) {
  const Scope scope(this, [] {});  // something is under way: it is waiting
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithTimeout(absl::Condition(&raised_), duration);
}

bool Interrupts::raised() const {
  absl::MutexLock lock(&mu_);
  return raised_;
}

}  // namespace gatefold::cli

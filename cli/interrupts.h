#pragma once

#include <functional>
#include <list>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gatefold::cli {

// Ctrl-C ends what is under way in good order: a request is cancelled, a server stopped.
// Threads: safe.
class Interrupts {
 public:
  // While it lives, an interrupt calls `stop`, on any thread and with a lock held: it must be
  // quick. It is called at once if the interrupt has been.
  class Scope {
   public:
    Scope(Interrupts* interrupts, std::function<void()> stop);
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope();

   private:
    Interrupts* const interrupts_;
    std::list<std::function<void()>>::iterator place_;
  };

  // False if nothing was under way that could be stopped.
  bool Raise();
  // Waits for so long, or until an interrupt. False: it came.
  bool Pause(absl::Duration duration);
  bool raised() const;

 private:
  mutable absl::Mutex mu_;
  bool raised_ ABSL_GUARDED_BY(mu_) = false;
  std::list<std::function<void()>> stops_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold::cli

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace gatefold {

// The ids of requests that have not ended, and how to cancel them. Each caller has ids of its own:
// nobody can take another's, or learn that it is in use. Threads: safe; outlives its leases.
class LiveRequests {
  using Key = std::pair<std::string, std::string>;  // caller, id

 public:
  // Holds an id; gives it back when destroyed.
  class Lease {
   public:
    Lease(LiveRequests* live, Key key) : live_(live), key_(std::move(key)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() { live_->Release(key_); }
    const std::string& id() const { return key_.second; }

   private:
    LiveRequests* const live_;
    const Key key_;
  };

  explicit LiveRequests(int capacity) : capacity_(capacity) {}

  // An empty id is replaced by one of 128 random bits. `cancel` may be called from any thread until
  // the lease is gone, and shortly after.
  // Errors: kAlreadyExists (DUPLICATE_REQUEST), kResourceExhausted (QUEUE_FULL) with `retry_delay`.
  absl::StatusOr<std::unique_ptr<Lease>> Claim(absl::string_view id, absl::Duration retry_delay,
                                               std::function<void()> cancel,
                                               const std::string& caller = "");

  // Whoever's it is. False if no such request lives.
  bool Cancel(absl::string_view id);

  // `caller`: only of this caller.
  bool Contains(absl::string_view id, const std::optional<std::string>& caller) const;
  int size() const;

 private:
  void Release(const Key& key);

  const int capacity_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<Key, std::function<void()>> live_ ABSL_GUARDED_BY(mu_);  // cancels it
};

}  // namespace gatefold

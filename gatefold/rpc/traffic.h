#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gatefold {

// What went to one peer and came back, over all streams to it. Everything counts up.
struct PeerTraffic {
  std::atomic<uint64_t> bytes_sent{0};
  std::atomic<uint64_t> bytes_received{0};
  std::atomic<uint64_t> n_answers{0};
  std::atomic<uint64_t> answer_nanos{0};  // from Send to the answer, summed
};

// The traffic of a process by its peers' addresses. A peer is there while somebody keeps what Of()
// gave, so that those that are long gone do not pile up. Threads: safe.
class TrafficTable {
 public:
  std::shared_ptr<PeerTraffic> Of(const std::string& address);

  using Peers = std::vector<std::pair<std::string, std::shared_ptr<const PeerTraffic>>>;
  Peers All() const;  // by address, ascending

  // Streams that ended. At most one observer; null: nobody. Once this returns the one before is not
  // called any more.
  using AttemptObserver =
      std::function<void(absl::string_view method, absl::StatusCode code, absl::Duration time)>;
  void ObserveAttempts(AttemptObserver observer);
  void OnAttempt(absl::string_view method, absl::StatusCode code, absl::Duration time);

 private:
  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::weak_ptr<PeerTraffic>> peers_ ABSL_GUARDED_BY(mu_);
  AttemptObserver observer_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold

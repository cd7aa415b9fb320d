#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "expert-service/expert_backend.h"
#include "expert-service/expert_selection.h"
#include "gatefold/base/thread_pool.h"

namespace gatefold {

enum class LoadedFrom { kCheckpoint, kShard };
inline constexpr int kLoadedFroms = 2;
constexpr absl::string_view LoadedFromName(LoadedFrom from) {
  return from == LoadedFrom::kCheckpoint ? "checkpoint" : "shard";
}

// An expert in its backend's keeping.
struct LoadedExpert {
  std::shared_ptr<const HeldExpert> expert;
  LoadedFrom from = LoadedFrom::kCheckpoint;
  uint64_t bytes = 0;  // as in the checkpoint
};

// A shard that may be asked for experts.
struct ExpertHolder {
  std::string address;
  std::vector<ExpertId> experts;  // ascending
};

// Where a shard gets experts from. Threads: safe, several experts at a time.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;
  // `threads` may be null. Errors: NotFound (nobody is known to have it), Unavailable (nobody gave
  // it), and those of the backend.
  virtual absl::StatusOr<LoadedExpert> Get(ExpertId id, ThreadPool* threads) = 0;
  // From now on these may be asked, best first. A source that asks nobody need not know.
  virtual void SetHolders(std::vector<ExpertHolder> /*holders*/) {}
};

// Told of loads, on the thread that loads.
class LoadObserver {
 public:
  virtual ~LoadObserver() = default;
  virtual void OnLoaded(const LoadedExpert& expert) = 0;
  // `reason`: one of those that metrics.md lists.
  virtual void OnLoadFailed(absl::string_view reason) = 0;
};

}  // namespace gatefold

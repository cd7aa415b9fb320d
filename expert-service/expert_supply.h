#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "expert-service/expert_source.h"

namespace gatefold {

// What --load-from says.
enum class LoadFrom {
  kCheckpoint,  // alone
  kShards,      // first; the checkpoint, where there is one, if none gives it
  kAuto,        // from where experts come faster, and from the other if that fails
};
// InvalidArgument for another name.
absl::StatusOr<LoadFrom> ParseLoadFrom(absl::string_view text);

// Chooses between the checkpoint and other shards for each expert, and keeps count.
//
// Auto starts with the checkpoint, tries shards with the second expert, and then takes the source
// whose moving average of bytes per second is higher; one expert in 16 goes to the other one, so
// that its average stays true. Loads at the same time share what there is, which slows both alike.
class ExpertSupply final : public ExpertSource {
 public:
  // Sources and observer outlive it. A source that there is none of is null, not both; `observer`
  // may be.
  ExpertSupply(LoadFrom from, ExpertSource* checkpoint, ExpertSource* shards,
               LoadObserver* observer, std::function<absl::Time()> now = absl::Now);

  absl::StatusOr<LoadedExpert> Get(ExpertId id, ThreadPool* threads) override;
  void SetHolders(std::vector<ExpertHolder> holders) override;

 private:
  std::vector<LoadedFrom> Order();
  ExpertSource* Source(LoadedFrom from) const {
    return from == LoadedFrom::kCheckpoint ? checkpoint_ : shards_;
  }
  // No bytes: nobody gave the expert.
  void NotePace(LoadedFrom from, uint64_t bytes, absl::Duration time);

  const LoadFrom from_;
  ExpertSource* const checkpoint_;
  ExpertSource* const shards_;
  LoadObserver* const observer_;
  const std::function<absl::Time()> now_;
  absl::Mutex mu_;
  uint64_t n_loads_ ABSL_GUARDED_BY(mu_) = 0;
  // Moving average; nullopt: not tried yet.
  std::optional<double> bytes_per_second_[kLoadedFroms] ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold

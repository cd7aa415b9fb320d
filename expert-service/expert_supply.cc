#include "expert-service/expert_supply.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr double kNewest = 0.3;       // weight of the newest load in the average
constexpr uint64_t kLookAround = 16;  // one load in so many goes to the slower source

constexpr LoadedFrom Other(LoadedFrom from) {
  return from == LoadedFrom::kCheckpoint ? LoadedFrom::kShard : LoadedFrom::kCheckpoint;
}

}  // namespace

absl::StatusOr<LoadFrom> ParseLoadFrom(absl::string_view text) {
  if (text == "checkpoint") return LoadFrom::kCheckpoint;
  if (text == "shards") return LoadFrom::kShards;
  if (text == "auto") return LoadFrom::kAuto;
  return absl::InvalidArgumentError(
      absl::StrCat("--load-from is \"", text, "\", must be checkpoint, shards or auto"));
}

ExpertSupply::ExpertSupply(LoadFrom from, ExpertSource* checkpoint, ExpertSource* shards,
                           LoadObserver* observer, std::function<absl::Time()> now)
    : from_(from),
      checkpoint_(checkpoint),
      shards_(shards),
      observer_(observer),
      now_(std::move(now)) {
  GF_CHECK(checkpoint_ != nullptr || shards_ != nullptr);
}

void ExpertSupply::SetHolders(std::vector<ExpertHolder> holders) {
  if (shards_ != nullptr) shards_->SetHolders(std::move(holders));
}

std::vector<LoadedFrom> ExpertSupply::Order() {
  if (shards_ == nullptr) return {LoadedFrom::kCheckpoint};
  if (checkpoint_ == nullptr) return {LoadedFrom::kShard};
  if (from_ == LoadFrom::kCheckpoint) return {LoadedFrom::kCheckpoint};
  if (from_ == LoadFrom::kShards) return {LoadedFrom::kShard, LoadedFrom::kCheckpoint};
  absl::MutexLock lock(&mu_);
  const auto& [checkpoint, shards] = bytes_per_second_;
  LoadedFrom first =
      shards.value_or(0) > checkpoint.value_or(0) ? LoadedFrom::kShard : LoadedFrom::kCheckpoint;
  if (n_loads_++ % kLookAround == 1) first = Other(first);
  return {first, Other(first)};
}

void ExpertSupply::NotePace(LoadedFrom from, uint64_t bytes, absl::Duration time) {
  const double pace = static_cast<double>(bytes) / std::max(1e-6, absl::ToDoubleSeconds(time));
  absl::MutexLock lock(&mu_);
  std::optional<double>& average = bytes_per_second_[static_cast<int>(from)];
  average = average.has_value() ? (1 - kNewest) * *average + kNewest * pace : pace;
}

absl::StatusOr<LoadedExpert> ExpertSupply::Get(ExpertId id, ThreadPool* threads) {
  absl::Status status;
  for (const LoadedFrom from : Order()) {
    const absl::Time start = now_();
    absl::StatusOr<LoadedExpert> loaded = Source(from)->Get(id, threads);
    // That no shard has it says nothing of their pace.
    const bool asked = loaded.ok() || !absl::IsNotFound(loaded.status());
    if (asked) NotePace(from, loaded.ok() ? loaded->bytes : 0, now_() - start);
    if (loaded.ok()) {
      if (observer_ != nullptr) observer_->OnLoaded(*loaded);
      return loaded;
    }
    status = loaded.status();
    // Shards would send what the backend has just refused.
    if (from == LoadedFrom::kCheckpoint) break;
  }
  if (observer_ != nullptr && absl::IsNotFound(status)) observer_->OnLoadFailed("no_holder");
  return status;
}

}  // namespace gatefold

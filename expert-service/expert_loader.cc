#include "expert-service/expert_loader.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/log.h"

namespace gatefold {

ExpertLoader::ExpertLoader(const ModelWeights* weights, ExpertStore* store, Options options)
    : weights_(weights), store_(store), options_(std::move(options)) {
  {
    absl::MutexLock lock(&mu_);
    const std::vector<ExpertId> held = store_->Held();
    held_ = assigned_ = std::set<ExpertId>(held.begin(), held.end());
  }
  thread_ = std::thread([this] { Run(); });
}

ExpertLoader::~ExpertLoader() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status ExpertLoader::Assign(uint64_t epoch, std::vector<ExpertId> experts) {
  uint64_t bytes = 0;
  for (const ExpertId& id : experts) bytes += weights_->ExpertBytes(id.layer, id.expert);
  if (options_.capacity_bytes > 0 && bytes > options_.capacity_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the assignment has ", bytes,
                                                     " bytes, this shard takes at most ",
                                                     options_.capacity_bytes));
  }
  std::set<ExpertId> assigned(experts.begin(), experts.end());
  absl::MutexLock lock(&mu_);
  if (epoch < epoch_) {
    return absl::FailedPreconditionError(
        absl::StrCat("epoch is ", epoch, ", this shard has been assigned epoch ", epoch_));
  }
  if (epoch == epoch_ && epoch_ > 0 && assigned != assigned_) {
    return absl::FailedPreconditionError(
        absl::StrCat("epoch ", epoch, " was assigned before, with other experts"));
  }
  epoch_ = epoch;
  assigned_ = std::move(assigned);
  return absl::OkStatus();
}

uint64_t ExpertLoader::epoch() const {
  absl::MutexLock lock(&mu_);
  return epoch_;
}

size_t ExpertLoader::n_loading() const {
  absl::MutexLock lock(&mu_);
  size_t n = 0;
  for (const ExpertId& id : assigned_) n += !held_.contains(id);
  return n;
}

bool ExpertLoader::AwaitIdle(absl::Time deadline) const {
  absl::MutexLock lock(&mu_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !busy_ && held_ == assigned_;
  };
  return mu_.AwaitWithDeadline(absl::Condition(&idle), deadline);
}

ExpertLoader::Work ExpertLoader::NextWork() const {
  Work work;
  std::set_difference(held_.begin(), held_.end(), assigned_.begin(), assigned_.end(),
                      std::back_inserter(work.to_drop));
  for (const ExpertId& id : assigned_) {
    if (!work.to_drop.empty()) break;
    if (held_.contains(id)) continue;
    work.to_load.push_back(id);
    break;
  }
  return work;
}

void ExpertLoader::Run() {
  for (;;) {
    Work work;
    {
      absl::MutexLock lock(&mu_);
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || held_ != assigned_;
      };
      busy_ = false;
      mu_.Await(absl::Condition(&wanted));
      busy_ = true;
      if (stopping_) return;
      work = NextWork();
    }
    store_->Drop(work.to_drop);
    const absl::Status loaded = store_->Load(work.to_load, /*threads=*/nullptr, /*progress=*/nullptr);
    if (!loaded.ok()) {
      LogEvent(LogLevel::kError, "expert_not_loaded",
               {{"error", loaded.ToString()}, {"again_in", absl::FormatDuration(options_.retry_after)}});
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithTimeout(absl::Condition(&stopping_), options_.retry_after);
      continue;
    }
    {
      absl::MutexLock lock(&mu_);
      for (const ExpertId& id : work.to_drop) held_.erase(id);
      held_.insert(work.to_load.begin(), work.to_load.end());
    }
    if (options_.on_change) options_.on_change();
  }
}

}  // namespace gatefold

#include "expert-service/expert_loader.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/background_thread.h"
#include "gatefold/base/log.h"

namespace gatefold {

namespace {

// Of the expert whose bytes grow most when the backend keeps it: narrow ones are padded. In whole
// numbers, so that memory for so many experts is not found to lack a byte of the last one.
struct Growth {
  unsigned __int128 held = 0, in_checkpoint = 1;
};

Growth MostGrowth(const ExpertCatalog& catalog, const ExpertBackend& backend) {
  Growth most;
  for (int layer = 0; layer < catalog.config().n_layers; ++layer) {
    for (int expert = 0; expert < catalog.config().experts_per_layer(); ++expert) {
      const ExpertLayout layout = catalog.Layout(layer, expert);
      const Growth growth = {backend.HeldBytes(layout.sizes()), layout.size_bytes()};
      if (growth.held * most.in_checkpoint > most.held * growth.in_checkpoint) most = growth;
    }
  }
  return most;
}

}  // namespace

uint64_t CheckpointCapacity(uint64_t memory_bytes, const ExpertCatalog& catalog,
                            const ExpertBackend& backend) {
  if (memory_bytes == 0) return 0;
  const Growth growth = MostGrowth(catalog, backend);
  constexpr unsigned __int128 kLeast = 1, kMost = uint64_t{1} << 62;
  return static_cast<uint64_t>(
      std::clamp(memory_bytes * growth.in_checkpoint / growth.held, kLeast, kMost));
}

absl::Status CheckCapacity(uint64_t memory_bytes, const ExpertCatalog& catalog,
                           const ExpertBackend& backend) {
  const Growth growth = MostGrowth(catalog, backend);
  const uint64_t largest = catalog.ExpertBytes(0, 0);  // no other is larger
  const auto one = static_cast<uint64_t>((largest * growth.held + growth.in_checkpoint - 1) /
                                         growth.in_checkpoint);
  if (memory_bytes == 0 || memory_bytes >= one) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--capacity is ", memory_bytes, " bytes, but one expert of this model takes ", one));
}

ExpertLoader::ExpertLoader(const ExpertCatalog* catalog, ExpertSource* source, ExpertStore* store,
                           Options options)
    : catalog_(catalog), source_(source), store_(store), options_(std::move(options)) {
  {
    absl::MutexLock lock(&mu_);
    const std::vector<ExpertId> held = store_->Held();
    held_ = assigned_ = std::set<ExpertId>(held.begin(), held.end());
    for (const ExpertId& id : held) taken_bytes_ += Bytes(id);
  }
  for (int i = 0; i < options_.n_threads; ++i) threads_.emplace_back([this] { Run(); });
}

ExpertLoader::~ExpertLoader() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::Status ExpertLoader::Assign(uint64_t epoch, std::vector<ExpertId> experts,
                                  std::vector<ExpertHolder> holders) {
  std::set<ExpertId> assigned(experts.begin(), experts.end());
  uint64_t bytes = 0;
  for (const ExpertId& id : assigned) bytes += Bytes(id);
  if (options_.capacity_bytes > 0 && bytes > options_.capacity_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("the assignment has ", bytes,
                                                     " bytes, this shard takes at most ",
                                                     options_.capacity_bytes));
  }
  absl::MutexLock lock(&mu_);
  if (epoch < epoch_) {
    return absl::FailedPreconditionError(
        absl::StrCat("epoch is ", epoch, ", this shard has been assigned epoch ", epoch_));
  }
  if (epoch == epoch_ && epoch_ > 0 && assigned != assigned_) {
    return absl::FailedPreconditionError(
        absl::StrCat("epoch ", epoch, " was assigned before, with other experts"));
  }
  source_->SetHolders(std::move(holders));
  epoch_ = epoch;
  assigned_ = std::move(assigned);
  retries_.clear();  // the holders may be others
  if (Complete()) {
    batch_ = Batch();
  } else {
    batch_.start = std::min(batch_.start, absl::Now());
  }
  ++n_changes_;
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
    return n_busy_ == 0 && held_ == assigned_;
  };
  return mu_.AwaitWithDeadline(absl::Condition(&idle), deadline);
}

bool ExpertLoader::Complete() const {
  return std::includes(held_.begin(), held_.end(), assigned_.begin(), assigned_.end());
}

std::vector<ExpertId> ExpertLoader::ToDrop() const {
  std::vector<ExpertId> to_drop;
  std::set_difference(held_.begin(), held_.end(), assigned_.begin(), assigned_.end(),
                      std::back_inserter(to_drop));
  return to_drop;
}

const ExpertId* ExpertLoader::NextToLoad(absl::Time* again) const {
  const absl::Time now = absl::Now();
  for (const ExpertId& id : assigned_) {
    if (held_.contains(id) || loading_.contains(id)) continue;
    const auto retry = retries_.find(id);
    if (retry != retries_.end() && retry->second.at > now) {
      *again = std::min(*again, retry->second.at);
      continue;
    }
    // What is on its way for an assignment of before takes room until it is there and dropped.
    if (options_.capacity_bytes > 0 && taken_bytes_ + Bytes(id) > options_.capacity_bytes)
      return nullptr;
    return &id;
  }
  return nullptr;
}

void ExpertLoader::Run() {
  StepBackForOthers();
  absl::MutexLock lock(&mu_);
  while (!stopping_) {
    const std::vector<ExpertId> to_drop = ToDrop();
    absl::Time again = absl::InfiniteFuture();
    const ExpertId* const to_load = to_drop.empty() ? NextToLoad(&again) : nullptr;
    if (to_drop.empty() && to_load == nullptr) {
      const uint64_t seen = n_changes_;
      const auto changed = [this, seen]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || n_changes_ != seen;
      };
      mu_.AwaitWithDeadline(absl::Condition(&changed), again);
      continue;
    }
    ++n_busy_;
    if (to_load != nullptr) {
      Load(*to_load);
    } else {
      Drop(to_drop);
    }
    ++n_changes_;
    mu_.Unlock();
    if (options_.on_change) options_.on_change();
    mu_.Lock();
    --n_busy_;
  }
}

void ExpertLoader::Drop(const std::vector<ExpertId>& experts) {
  std::vector<std::shared_ptr<const HeldExpert>> dropped = store_->Drop(experts);
  for (const ExpertId& id : experts) held_.erase(id);
  mu_.Unlock();
  dropped.clear();  // gives memory back, which takes time
  mu_.Lock();
  for (const ExpertId& id : experts) taken_bytes_ -= Bytes(id);
}

void ExpertLoader::Load(ExpertId id) {
  loading_.insert(id);
  taken_bytes_ += Bytes(id);
  mu_.Unlock();
  absl::StatusOr<LoadedExpert> loaded = source_->Get(id, /*threads=*/nullptr);
  mu_.Lock();
  loading_.erase(id);
  if (loaded.ok() && assigned_.contains(id)) {
    Keep(id, *std::move(loaded));
    return;
  }
  taken_bytes_ -= Bytes(id);
  if (!loaded.ok() && assigned_.contains(id)) PutOff(id, loaded.status());
}

void ExpertLoader::Keep(ExpertId id, LoadedExpert loaded) {
  store_->Put(id, std::move(loaded.expert));
  held_.insert(id);
  retries_.erase(id);
  ++batch_.n_experts;
  batch_.bytes[static_cast<int>(loaded.from)] += loaded.bytes;
  if (!Complete()) return;
  const absl::Duration took = absl::Now() - batch_.start;
  LogEvent(LogLevel::kInfo, "experts_loaded",
           {{"epoch", epoch_},
            {"experts", batch_.n_experts},
            {"bytes_from_checkpoint", batch_.bytes[static_cast<int>(LoadedFrom::kCheckpoint)]},
            {"bytes_from_shards", batch_.bytes[static_cast<int>(LoadedFrom::kShard)]},
            {"seconds", absl::ToDoubleSeconds(took)}});
  if (options_.on_complete) options_.on_complete(took);
  batch_ = Batch();
}

void ExpertLoader::PutOff(ExpertId id, const absl::Status& why) {
  Retry& retry = retries_[id];
  retry.wait = std::clamp(2 * retry.wait, options_.first_retry, options_.last_retry);
  const absl::Time now = absl::Now();
  retry.at = now + retry.wait;
  if (now < put_off_logged_ + absl::Seconds(1)) return;
  put_off_logged_ = now;
  LogEvent(LogLevel::kError, "expert_not_loaded",
           {{"layer", id.layer},
            {"expert", id.expert},
            {"error", why.ToString()},
            {"put_off", retries_.size()},
            {"again_in", absl::FormatDuration(retry.wait)}});
}

}  // namespace gatefold

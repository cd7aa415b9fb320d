#include "expert-service/expert_store.h"

#include <utility>

namespace gatefold {

ExpertStore::ExpertStore(const ModelConfig& config, ExpertBackend* backend)
    : config_(config), backend_(backend) {
  absl::MutexLock lock(&mu_);
  experts_.resize(static_cast<size_t>(config_.n_layers) * config_.experts_per_layer());
}

void ExpertStore::Put(ExpertId id, std::shared_ptr<const HeldExpert> expert) {
  absl::MutexLock lock(&mu_);
  std::shared_ptr<const HeldExpert>& held = experts_[Index(id)];
  if (held != nullptr) return;
  loaded_bytes_ += expert->size_bytes();
  held = std::move(expert);
}

std::vector<std::shared_ptr<const HeldExpert>> ExpertStore::Drop(
    absl::Span<const ExpertId> experts) {
  std::vector<std::shared_ptr<const HeldExpert>> dropped;
  absl::MutexLock lock(&mu_);
  for (const ExpertId& id : experts) {
    std::shared_ptr<const HeldExpert>& held = experts_[Index(id)];
    if (held == nullptr) continue;
    loaded_bytes_ -= held->size_bytes();
    dropped.push_back(std::move(held));
    held = nullptr;
  }
  return dropped;
}

std::shared_ptr<const HeldExpert> ExpertStore::Find(ExpertId id) const {
  absl::MutexLock lock(&mu_);
  return experts_[Index(id)];
}

std::vector<ExpertId> ExpertStore::Held() const {
  absl::MutexLock lock(&mu_);
  std::vector<ExpertId> held;
  const int per_layer = config().experts_per_layer();
  for (size_t i = 0; i < experts_.size(); ++i) {
    if (experts_[i] != nullptr) {
      held.push_back({static_cast<int>(i / per_layer), static_cast<int>(i % per_layer)});
    }
  }
  return held;
}

uint64_t ExpertStore::loaded_bytes() const {
  absl::MutexLock lock(&mu_);
  return loaded_bytes_;
}

}  // namespace gatefold

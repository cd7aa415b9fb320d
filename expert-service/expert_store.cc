#include "expert-service/expert_store.h"

#include <utility>

namespace gatefold {

ExpertStore::ExpertStore(const ModelWeights* weights) : weights_(weights) {
  absl::MutexLock lock(&mu_);
  experts_.resize(static_cast<size_t>(config().n_layers) * config().experts_per_layer());
}

void ExpertStore::Load(absl::Span<const ExpertId> experts, ThreadPool* threads,
                       LoadProgress* progress) {
  for (size_t i = 0; i < experts.size(); ++i) {
    const ExpertId id = experts[i];
    if (i + 1 < experts.size()) {
      weights_->PrefetchExpert(experts[i + 1].layer, experts[i + 1].expert);
    }
    if (Find(id) == nullptr) {
      const ExpertWeightsView view = weights_->Expert(id.layer, id.expert);
      auto loaded = std::make_shared<const ExpertWeights>(
          ExpertWeights::Views{view.w1, view.w3, view.w2, view.b1, view.b3, view.b2}, threads);
      weights_->DropExpert(id.layer, id.expert);
      absl::MutexLock lock(&mu_);
      loaded_bytes_ += loaded->size_bytes();
      experts_[Index(id)] = std::move(loaded);
    }
    if (progress != nullptr) progress->Add(weights_->ExpertBytes(id.layer, id.expert));
  }
}

void ExpertStore::Drop(absl::Span<const ExpertId> experts) {
  absl::MutexLock lock(&mu_);
  for (const ExpertId& id : experts) {
    std::shared_ptr<const ExpertWeights>& held = experts_[Index(id)];
    if (held != nullptr) loaded_bytes_ -= held->size_bytes();
    held = nullptr;
  }
}

std::shared_ptr<const ExpertWeights> ExpertStore::Find(ExpertId id) const {
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

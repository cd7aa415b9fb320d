#include "expert-service/expert_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

ExpertStore::ExpertStore(const ModelWeights* weights, ExpertBackend* backend)
    : weights_(weights), backend_(backend) {
  absl::MutexLock lock(&mu_);
  experts_.resize(static_cast<size_t>(config().n_layers) * config().experts_per_layer());
}

absl::Status ExpertStore::Load(absl::Span<const ExpertId> experts, ThreadPool* threads,
                               LoadProgress* progress) {
  for (size_t i = 0; i < experts.size(); ++i) {
    const ExpertId id = experts[i];
    if (i + 1 < experts.size()) {
      weights_->PrefetchExpert(experts[i + 1].layer, experts[i + 1].expert);
    }
    if (Find(id) == nullptr) {
      absl::StatusOr<std::shared_ptr<const HeldExpert>> copy =
          backend_->Load(weights_->Expert(id.layer, id.expert), threads);
      if (!copy.ok()) {
        return Annotate(copy.status(), absl::StrCat("expert ", id.expert, " of layer ", id.layer));
      }
      std::shared_ptr<const HeldExpert> loaded = *std::move(copy);
      weights_->DropExpert(id.layer, id.expert);
      absl::MutexLock lock(&mu_);
      loaded_bytes_ += loaded->size_bytes();
      experts_[Index(id)] = std::move(loaded);
    }
    if (progress != nullptr) progress->Add(weights_->ExpertBytes(id.layer, id.expert));
  }
  return absl::OkStatus();
}

void ExpertStore::Drop(absl::Span<const ExpertId> experts) {
  absl::MutexLock lock(&mu_);
  for (const ExpertId& id : experts) {
    std::shared_ptr<const HeldExpert>& held = experts_[Index(id)];
    if (held != nullptr) loaded_bytes_ -= held->size_bytes();
    held = nullptr;
  }
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

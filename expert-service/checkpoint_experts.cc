#include "expert-service/checkpoint_experts.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

absl::StatusOr<LoadedExpert> CheckpointExperts::Get(ExpertId id, ThreadPool* threads) {
  LoadedExpert loaded;
  loaded.bytes = weights_->ExpertBytes(id.layer, id.expert);
  weights_->PrefetchExpert(id.layer, id.expert);
  absl::StatusOr<std::shared_ptr<const HeldExpert>> copy =
      backend_->Load(weights_->Expert(id.layer, id.expert), threads);
  if (!copy.ok()) {
    return Annotate(copy.status(), absl::StrCat("expert ", id.expert, " of layer ", id.layer));
  }
  loaded.expert = *std::move(copy);
  weights_->DropExpert(id.layer, id.expert);
  return loaded;
}

absl::Status CheckpointExperts::Fill(absl::Span<const ExpertId> experts, ThreadPool* threads,
                                     LoadProgress* progress, ExpertStore* store) {
  for (size_t i = 0; i < experts.size(); ++i) {
    const ExpertId id = experts[i];
    if (i + 1 < experts.size()) {
      weights_->PrefetchExpert(experts[i + 1].layer, experts[i + 1].expert);
    }
    if (store->Find(id) == nullptr) {
      GF_ASSIGN_OR_RETURN(LoadedExpert loaded, Get(id, threads));
      store->Put(id, std::move(loaded.expert));
    }
    if (progress != nullptr) progress->Add(weights_->ExpertBytes(id.layer, id.expert));
  }
  return absl::OkStatus();
}

}  // namespace gatefold

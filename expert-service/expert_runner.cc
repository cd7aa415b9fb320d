#include "expert-service/expert_runner.h"

#include "absl/strings/str_cat.h"

namespace gatefold {

absl::Status ExpertRunner::Run(int layer, absl::Span<const ExpertVisit> visits, const float* x,
                               int n_rows, float* y) {
  std::vector<std::shared_ptr<const HeldExpert>> held;  // until the computation is done
  std::vector<HeldGroup> groups;
  for (const ExpertVisit& visit : visits) {
    if (visit.rows.empty()) continue;
    held.push_back(store_->Find({layer, visit.expert}));
    if (held.back() == nullptr) {
      return absl::NotFoundError(
          absl::StrCat("expert ", visit.expert, " of layer ", layer, " is not held here"));
    }
    groups.push_back({held.back().get(), visit.rows, visit.slots});
  }
  for (const ExpertVisit& visit : visits) {
    if (!visit.rows.empty()) rows_[Index(layer, visit.expert)] += visit.rows.size();
  }
  absl::MutexLock lock(&compute_mu_);
  return store_->backend()->Run(groups, x, n_rows, y);
}

}  // namespace gatefold

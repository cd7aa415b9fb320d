#include "expert-service/local_expert_client.h"

#include <algorithm>

namespace gatefold {

absl::Status LocalExpertClient::Run(const Step& /*step*/, int layer, const float* h,
                                    const Routes& routes, float* answers, uint8_t* served_by) {
  visits_.resize(runner_->store().config().experts_per_layer());
  for (size_t expert = 0; expert < visits_.size(); ++expert) {
    visits_[expert].expert = static_cast<int>(expert);
    visits_[expert].rows.clear();
    visits_[expert].slots.clear();
  }
  for (size_t slot = 0; slot < routes.experts.size(); ++slot) {
    ExpertVisit& visit = visits_[routes.experts[slot]];
    visit.rows.push_back(static_cast<int32_t>(slot / routes.top_k));
    visit.slots.push_back(static_cast<int32_t>(slot));
  }
  std::fill_n(served_by, routes.experts.size(), 0);
  return runner_->Run(layer, visits_, h, routes.n_rows, answers);
}

}  // namespace gatefold

#pragma once

#include <algorithm>

#include "expert-service/expert_backend.h"
#include "gatefold/engine/expert_client.h"

namespace gatefold {

// The experts of this process for rows that stay on their device, as the step loop sees them.
class ResidentExpertClient final : public ExpertClient {
 public:
  // The experts outlive the client.
  explicit ResidentExpertClient(ResidentExperts* experts) : experts_(experts) {}

  absl::Status Run(const Step& /*step*/, int layer, const float* h, const Routes& routes,
                   float* answers, uint8_t* served_by) override {
    std::fill_n(served_by, routes.experts.size(), 0);
    return experts_->Run(layer, h, routes, answers);
  }

 private:
  ResidentExperts* const experts_;
};

}  // namespace gatefold

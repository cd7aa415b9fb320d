#pragma once

#include <vector>

#include "expert-service/expert_runner.h"
#include "gatefold/engine/expert_client.h"

namespace gatefold {

// The experts of this process, as the step loop sees them.
class LocalExpertClient final : public ExpertClient {
 public:
  // The runner outlives the client.
  explicit LocalExpertClient(ExpertRunner* runner) : runner_(runner) {}

  absl::Status Run(const Step& step, int layer, const float* h, const Routes& routes,
                   float* answers, uint8_t* served_by) override;

 private:
  ExpertRunner* const runner_;
  std::vector<ExpertVisit> visits_;
};

}  // namespace gatefold

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router-service/gateway/candidate_transcript.h"
#include "router-service/gateway/gateway_context.h"

namespace gatefold {

// What is known of a generation once its prompt is tokenised, and before anything is computed.
struct PreparedGeneration {
  inference::v1::GenerationConfig config;  // effective
  std::vector<int32_t> prompt;
  int n_truncated = 0;
  std::vector<CandidateTranscript> transcripts;  // by candidate
  std::optional<StopCause> resumed_end;          // set: what is resumed is all of the output
};

// Of a request that the checker accepted. May take a second. Errors: as the caller is to get them.
absl::StatusOr<PreparedGeneration> PrepareGeneration(
    const GatewayContext& context, const inference::v1::StreamGenerateTextRequest& request,
    absl::Time deadline);

// What the scheduler is asked for, by candidate.
std::vector<GenerationRequest> Submissions(const GatewayContext& context,
                                           const inference::v1::StreamGenerateTextRequest& request,
                                           const PreparedGeneration& prepared,
                                           const std::string& request_id, absl::Time deadline);

}  // namespace gatefold

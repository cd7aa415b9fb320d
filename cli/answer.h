#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/connection.h"
#include "cli/routing_view.h"
#include "cli/verb.h"
#include "gatefold/inference/v1/inference.pb.h"

namespace gatefold::cli {

// All that a stream told about its one candidate.
struct Answer {
  std::string text;
  std::vector<int32_t> token_ids;
  std::vector<inference::v1::TokenLogprobs> logprobs;
  inference::v1::StreamGenerateTextResponse::Finish finish;
  inference::v1::Summary summary;
  RoutingShares routing;   // of prompt and output
  uint32_t n_resumed = 0;  // tokens from before the last stream, whose times the summary has
};

// Runs a request to its end. `on_delta` may be null; it sees the answer's parts as they come.
// Errors: the request's; Internal if the stream ends without having been finished; what `on_delta`
// returns, which cancels the request.
using OnDelta =
    std::function<absl::Status(const inference::v1::StreamGenerateTextResponse::Delta&)>;
absl::StatusOr<Answer> GenerateAnswer(Connection* connection,
                                      const inference::v1::GenerateTextRequest& request,
                                      const OnDelta& on_delta);
// The same, but where a router goes away it goes on at the next one of the connection (or at the
// same address, once for each time that it brought tokens) from the tokens it has, with the same
// seed: they are those that would have come anyway. The console's errors say so, and why.
absl::StatusOr<Answer> GenerateSteadily(Connection* connection,
                                        const inference::v1::GenerateTextRequest& request,
                                        const OnDelta& on_delta, Console* console);
// Prints the text as it comes.
OnDelta PrintedOn(Console* console);

double Seconds(const google::protobuf::Duration& span);

// "length", "stop_sequence", ...
std::string FinishReasonName(inference::v1::FinishReason reason);

}  // namespace gatefold::cli

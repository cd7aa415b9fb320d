#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "google/protobuf/repeated_field.h"
#include "router-service/gateway/gateway_options.h"
#include "router-service/gateway/model_info.h"

namespace gatefold {

// Checks everything about a request that can be known before its text is tokenised, in time linear
// in the request and without memory of its own. Fields are named by their path in the request (in
// GenerateTextRequest for the streaming call too), messages carry the value and the limit.
// Errors: those of the table in API.md. Threads: safe.
class RequestChecker {
 public:
  struct Abilities {
    bool text = true;          // there is a tokenizer
    bool conversation = true;  // and a chat template
  };

  // `model` and `limits` outlive the checker.
  RequestChecker(const ModelInfo* model, const RequestLimits* limits, Abilities abilities)
      : model_(*model), limits_(*limits), abilities_(abilities) {}

  using ResumeIds = google::protobuf::RepeatedField<int32_t>;
  absl::Status Check(const inference::v1::GenerateTextRequest& request,
                     const ResumeIds& resume_token_ids) const;
  absl::Status Check(const inference::v1::ScoreTextRequest& request) const;
  absl::Status Check(const inference::v1::CountTokensRequest& request) const;
  absl::Status Check(const inference::v1::TokenizeRequest& request) const;
  absl::Status Check(const inference::v1::DetokenizeRequest& request) const;

  // A name that requests may give: empty, or the model's.
  absl::Status CheckModel(absl::string_view name) const;

  absl::Status CheckRequestId(const std::string& id) const;

 private:
  enum class Emptiness { kAllowed, kRefused };
  // What becomes of a prompt with more tokens than the model's length.
  enum class Excess { kRefused, kTaken };
  absl::Status CheckPrompt(const inference::v1::Prompt& prompt, Emptiness emptiness,
                           Excess excess) const;
  absl::Status CheckPromptIds(const inference::v1::TokenIds& prompt, Excess excess) const;
  absl::Status CheckText(const std::string& text, const std::string& field) const;
  absl::Status CheckConversation(const inference::v1::Conversation& conversation) const;
  absl::Status CheckConfig(const inference::v1::GenerationConfig& config) const;
  absl::Status CheckNumbers(const inference::v1::GenerationConfig& config) const;
  absl::Status CheckStops(const inference::v1::GenerationConfig& config) const;
  absl::Status CheckResume(const inference::v1::GenerationConfig& config,
                           const ResumeIds& resume_token_ids) const;
  absl::Status CheckTopLogprobs(uint32_t top_logprobs, absl::string_view field) const;
  absl::Status CheckTokenId(int32_t id, const std::string& field) const;
  absl::Status CheckTokenIds(const google::protobuf::RepeatedField<int32_t>& ids,
                             absl::string_view field) const;

  const ModelInfo& model_;
  const RequestLimits& limits_;
  const Abilities abilities_;
};

}  // namespace gatefold

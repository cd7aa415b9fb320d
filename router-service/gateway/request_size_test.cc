#include "router-service/gateway/request_size.h"

#include <algorithm>
#include <string>

#include "gtest/gtest.h"
#include "router-service/gateway/gateway_fakes.h"
#include "router-service/gateway/request_checker.h"

namespace gatefold {
namespace {

using inference::v1::GenerateTextRequest;
using inference::v1::GenerationConfig;
using inference::v1::StreamGenerateTextRequest;

// Everything that there may be, in the largest bytes, but a prompt.
StreamGenerateTextRequest LargestWithoutPrompt(const RequestLimits& limits,
                                               const ModelInfo& model) {
  const int32_t id = model.vocab_size - 1;
  StreamGenerateTextRequest stream;
  GenerateTextRequest& request = *stream.mutable_request();
  request.set_model(model.name);
  request.set_request_id(std::string(limits.max_request_id_bytes, 'x'));
  request.set_priority(-limits.max_priority);
  request.set_truncation_policy(inference::v1::TRUNCATION_POLICY_KEEP_END);
  GenerationConfig& config = *request.mutable_config();
  config.set_seed(~uint64_t{0});
  for (int i = 0; i < limits.max_stop_sequences; ++i) {
    config.add_stop_sequences(std::string(limits.max_stop_sequence_bytes, 'x'));
  }
  config.mutable_stop_token_ids()->Resize(limits.max_stop_token_ids, id);
  for (int i = 0; i < limits.max_logit_bias; ++i) (*config.mutable_logit_bias())[id - i] = 1;
  stream.mutable_resume_token_ids()->Resize(model.max_sequence_tokens, id);
  return stream;
}

TEST(RequestSizeTest, WhatIsWithinAllLimitsFitsAndNotMuchMore) {
  const RequestLimits limits;
  ModelInfo model = TinyModel();
  model.vocab_size = 1 << 22;
  for (const int length : {4096, 131072, 1 << 20}) {
    model.max_sequence_tokens = length;
    const RequestChecker checker(&model, &limits, {});
    StreamGenerateTextRequest stream = LargestWithoutPrompt(limits, model);
    const GenerateTextRequest& request = stream.request();
    inference::v1::Prompt& prompt = *stream.mutable_request()->mutable_prompt();
    const auto bytes = [&] {
      EXPECT_EQ(checker.Check(request, stream.resume_token_ids()), absl::OkStatus());
      // Ids that are not packed have a tag each.
      return static_cast<int64_t>(stream.ByteSizeLong()) + limits.max_stop_token_ids + length +
             prompt.token_ids().ids_size();
    };
    prompt.set_text(std::string(limits.max_prompt_bytes, 'x'));
    EXPECT_LE(bytes(), MaxRequestBytes(limits, model));
    for (int i = 0; i < limits.max_messages; ++i) {
      auto* message = prompt.mutable_conversation()->add_messages();
      message->set_role(std::string(RequestLimits::kMaxRoleBytes, 'x'));
      message->set_content(std::string(limits.max_prompt_bytes / limits.max_messages, 'x'));
    }
    EXPECT_LE(bytes(), MaxRequestBytes(limits, model));
    prompt.mutable_token_ids()->mutable_ids()->Resize(std::max(limits.max_token_ids, length),
                                                      model.vocab_size - 1);
    EXPECT_LE(bytes(), MaxRequestBytes(limits, model));
    // The share of a text is all that is too much now.
    EXPECT_GT(bytes() + 1'200'000, MaxRequestBytes(limits, model));
  }
}

TEST(RequestSizeTest, EveryMessageStopSequenceAndBiasHasAPart) {
  const RequestLimits limits;
  EXPECT_GE(MaxRequestParts(limits),
            3 * limits.max_messages + limits.max_stop_sequences + limits.max_logit_bias + 8);
  EXPECT_LT(MaxRequestParts(limits), 10'000);
}

}  // namespace
}  // namespace gatefold

#pragma once

#include <vector>

#include "gatefold/inference/v1/inference.pb.h"
#include "router-service/gateway/text_codec.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// A token with its log-probability and alternatives, with raw bytes. `codec` may be null: no bytes.
inference::v1::TokenLogprobs MakeTokenLogprobs(const Sampled& sampled, const TextCodec* codec);

// Log-probabilities of a prompt's tokens, each given those before it; the first has none. The
// scheduler tells them in pieces. Threads: one at a time.
class PromptLogprobs {
 public:
  PromptLogprobs(const std::vector<int32_t>& prompt, const TextCodec* codec);

  // Entry i of `scores` is about the token after position first_position + i.
  void Add(int first_position, const std::vector<Sampled>& scores);

  // One entry per prompt token. Leaves nothing behind.
  void MoveTo(google::protobuf::RepeatedPtrField<inference::v1::TokenLogprobs>* out);

 private:
  const TextCodec* const codec_;
  std::vector<inference::v1::TokenLogprobs> tokens_;
};

}  // namespace gatefold

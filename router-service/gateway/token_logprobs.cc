#include "router-service/gateway/token_logprobs.h"

#include <utility>

namespace gatefold {

using inference::v1::TokenLogprobs;

TokenLogprobs MakeTokenLogprobs(const Sampled& sampled, const TextCodec* codec) {
  TokenLogprobs logprobs;
  logprobs.set_token_id(sampled.token);
  if (codec != nullptr) logprobs.set_token(codec->TokenBytes(sampled.token));
  logprobs.set_logprob(sampled.logprob);
  for (const auto& [id, logprob] : sampled.top) {
    auto* alternative = logprobs.add_top();
    alternative->set_token_id(id);
    if (codec != nullptr) alternative->set_token(codec->TokenBytes(id));
    alternative->set_logprob(logprob);
  }
  return logprobs;
}

PromptLogprobs::PromptLogprobs(const std::vector<int32_t>& prompt, const TextCodec* codec)
    : codec_(codec), tokens_(prompt.size()) {
  for (size_t i = 0; i < prompt.size(); ++i) {
    tokens_[i].set_token_id(prompt[i]);
    if (codec_ != nullptr) tokens_[i].set_token(codec_->TokenBytes(prompt[i]));
  }
}

void PromptLogprobs::Add(int first_position, const std::vector<Sampled>& scores) {
  for (size_t i = 0; i < scores.size(); ++i) {
    const size_t position = first_position + i + 1;
    if (position < tokens_.size()) tokens_[position] = MakeTokenLogprobs(scores[i], codec_);
  }
}

void PromptLogprobs::MoveTo(google::protobuf::RepeatedPtrField<TokenLogprobs>* out) {
  out->Reserve(static_cast<int>(tokens_.size()));
  for (TokenLogprobs& token : tokens_) *out->Add() = std::move(token);
  tokens_.clear();
}

}  // namespace gatefold

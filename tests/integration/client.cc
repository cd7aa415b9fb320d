#include "tests/integration/client.h"

#include <cstring>

#include "gatefold/rpc/status.h"

namespace gatefold {

namespace {

inference::v1::GenerateTextRequest RequestFor(const std::vector<int32_t>& prompt, int n_tokens,
                                              const Client::Configure& configure) {
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Assign(prompt.begin(),
                                                                       prompt.end());
  inference::v1::GenerationConfig* config = request.mutable_config();
  config->set_max_output_tokens(n_tokens);
  config->set_temperature(0);
  config->set_ignore_eos(true);
  if (configure) configure(config);
  request.mutable_output()->set_token_ids(true);
  return request;
}

}  // namespace

absl::StatusOr<Client::Score> Client::ScoreTokens(const std::vector<int32_t>& tokens) {
  inference::v1::ScoreTextRequest request;
  request.mutable_prompt()->mutable_token_ids()->mutable_ids()->Assign(tokens.begin(),
                                                                       tokens.end());
  request.set_routing_trace(true);
  request.set_last_logits(true);
  inference::v1::ScoreTextResponse response;
  grpc::ClientContext context;
  if (grpc::Status status = stub_->ScoreText(&context, request, &response); !status.ok()) {
    return FromGrpcStatus(status);
  }
  Score score;
  score.argmax.assign(response.argmax().begin(), response.argmax().end());
  for (int i = 1; i < response.tokens_size(); ++i) {
    score.logprobs.push_back(response.tokens(i).logprob());
  }
  score.last_logits.resize(response.last_logits().size() / sizeof(float));
  std::memcpy(score.last_logits.data(), response.last_logits().data(),
              score.last_logits.size() * sizeof(float));
  score.routing = response.routing_trace();
  return score;
}

absl::StatusOr<std::vector<int32_t>> Client::Generate(const std::vector<int32_t>& prompt,
                                                      int n_tokens, const Configure& configure) {
  const inference::v1::GenerateTextRequest request = RequestFor(prompt, n_tokens, configure);
  inference::v1::GenerateTextResponse response;
  grpc::ClientContext context;
  if (grpc::Status status = stub_->GenerateText(&context, request, &response); !status.ok()) {
    return FromGrpcStatus(status);
  }
  n_cached_tokens_ = static_cast<int>(response.summary().usage().cached_tokens());
  const auto& ids = response.candidates(0).token_ids();
  return std::vector<int32_t>(ids.begin(), ids.end());
}

absl::StatusOr<std::vector<int32_t>> Client::Stream(const std::vector<int32_t>& prompt,
                                                    int n_tokens, const Configure& configure,
                                                    std::atomic<int>* n_told) {
  inference::v1::StreamGenerateTextRequest request;
  *request.mutable_request() = RequestFor(prompt, n_tokens, configure);
  grpc::ClientContext context;
  auto events = stub_->StreamGenerateText(&context, request);
  std::vector<int32_t> tokens;
  inference::v1::StreamGenerateTextResponse event;
  while (events->Read(&event)) {
    const auto& ids = event.delta().token_ids();
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    *n_told += ids.size();
  }
  if (grpc::Status status = events->Finish(); !status.ok()) return FromGrpcStatus(status);
  return tokens;
}

}  // namespace gatefold

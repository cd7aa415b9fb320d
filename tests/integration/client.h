#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "grpcpp/channel.h"

namespace gatefold {

// A caller of the public API, as blunt as a test wants it.
class Client {
 public:
  explicit Client(const std::shared_ptr<grpc::Channel>& channel)
      : stub_(inference::v1::InferenceService::NewStub(channel)) {}

  struct Score {
    std::vector<int32_t> argmax;
    std::vector<float> logprobs;  // from the second token on
    std::vector<float> last_logits;
    inference::v1::RoutingTrace routing;
    friend bool operator==(const Score& a, const Score& b) {
      return a.argmax == b.argmax && a.logprobs == b.logprobs && a.last_logits == b.last_logits &&
             a.routing.expert_ids() == b.routing.expert_ids() &&
             a.routing.gate_weights() == b.routing.gate_weights();
    }
  };
  absl::StatusOr<Score> ScoreTokens(const std::vector<int32_t>& tokens);

  // Greedy, past end-of-sequence tokens, unless `configure` says otherwise.
  using Configure = std::function<void(inference::v1::GenerationConfig*)>;
  absl::StatusOr<std::vector<int32_t>> Generate(const std::vector<int32_t>& prompt, int n_tokens,
                                                const Configure& configure = nullptr);

  // The same as a stream, adding to n_told as tokens come.
  absl::StatusOr<std::vector<int32_t>> Stream(const std::vector<int32_t>& prompt, int n_tokens,
                                              const Configure& configure, std::atomic<int>* n_told);

  // Of the prompt of the last Generate, found in the prefix cache.
  int n_cached_tokens() const { return n_cached_tokens_; }

  inference::v1::InferenceService::Stub* stub() { return stub_.get(); }

 private:
  std::unique_ptr<inference::v1::InferenceService::Stub> stub_;
  int n_cached_tokens_ = 0;
};

}  // namespace gatefold

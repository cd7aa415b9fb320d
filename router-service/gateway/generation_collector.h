#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "gatefold/inference/v1/inference.pb.h"

namespace gatefold {

// Folds the events of a stream into the answer of the unary call, so that both say the same.
// Threads: one at a time.
class GenerationCollector {
 public:
  explicit GenerationCollector(int64_t max_response_bytes)
      : max_response_bytes_(max_response_bytes) {}

  // kResourceExhausted when the answer would have more than max_response_bytes.
  absl::Status Add(inference::v1::StreamGenerateTextResponse event);

  // After the last event.
  inference::v1::GenerateTextResponse Take();

 private:
  struct Output {
    inference::v1::StreamGenerateTextResponse::Delta whole;
    inference::v1::StreamGenerateTextResponse::Finish finish;
  };
  Output& At(uint32_t candidate_index);

  const int64_t max_response_bytes_;
  int64_t n_bytes_ = 0;
  inference::v1::GenerateTextResponse response_;
  std::vector<Output> outputs_;
};

}  // namespace gatefold

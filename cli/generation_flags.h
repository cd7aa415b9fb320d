#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/flag_set.h"
#include "gatefold/inference/v1/inference.pb.h"

namespace gatefold::cli {

// How tokens are drawn. What is not given is the model's default, so it is not sent.
struct GenerationFlags {
  std::optional<uint32_t> max_tokens, min_tokens, top_k;
  std::optional<uint64_t> seed;
  std::optional<float> temperature, top_p, min_p;
  std::optional<float> repetition_penalty, presence_penalty, frequency_penalty;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;

  void AddTo(FlagSet* flags);
  inference::v1::GenerationConfig ToConfig() const;
};

}  // namespace gatefold::cli

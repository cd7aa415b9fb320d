#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gatefold/inference/v1/model.pb.h"
#include "gatefold/model/model_config.h"

namespace gatefold {

// Sampling where the request is silent.
struct SamplingDefaults {
  float temperature = 1.0f;
  float top_p = 1.0f;
  int top_k = 0;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
};

// What the gateway knows of the model it serves: what requests are checked against, and what
// ModelService answers.
struct ModelInfo {
  std::string name;  // as requests name it
  std::string family;
  std::string fingerprint;  // hex; configuration and weights
  int vocab_size = 0;
  int d_model = 0;
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int n_experts = 0;  // 0: dense
  int top_k = 0;
  int n_slices = 0;
  int intermediate_size = 0;
  int max_sequence_tokens = 0;  // prompt and output together
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;
  std::string weight_dtype;
  uint64_t parameters = 0;
  uint64_t active_parameters = 0;
  bool has_chat_template = false;
  SamplingDefaults defaults;
};

// Everything that follows from the configuration. An explicit do_sample: false makes greedy the
// default; where generation_config.json only leaves it out, its other numbers (or 1) count, as
// servers of this field have it.
ModelInfo MakeModelInfo(std::string name, std::string fingerprint, const ModelConfig& config);

inference::v1::Model ToProto(const ModelInfo& info);

}  // namespace gatefold

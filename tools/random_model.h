#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {

// A model of random weights in the layout of a Hugging Face folder: for measurements, whose speed
// does not depend on what the weights say, and for tests and demonstrations.
struct RandomModelOptions {
  std::string family = "mixtral";  // or "llama", "mistral"
  int d_model = 128;
  int layers = 4;
  int heads = 8;
  int kv_heads = 2;
  int head_dim = 0;  // 0: d_model / heads
  int experts = 8;   // of mixtral
  int top_k = 2;     // of mixtral
  int intermediate = 256;
  int vocab = 288;
  int max_positions = 2048;
  int sliding_window = 0;  // 0: none
  double rope_theta = 1e6;
  double norm_eps = 1e-5;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // of llama
  bool mlp_bias = false;        // of llama
  DType dtype = DType::kBF16;
  uint64_t seed = 1;
};

// "tiny" (6 MB, two experts of eight, text works), "peers" (1.2 B parameters, 2.4 GB), and its
// dense twins with as many active or as many total parameters, "peers-dense-active" and
// "peers-dense-total"; "mixtral-8x7b" (that model's shape, 93 GB). InvalidArgument for other names.
absl::Status ApplyPreset(absl::string_view preset, RandomModelOptions* options);

// Creates the folder `out` and writes config.json, generation_config.json, tokenizer.json,
// tokenizer_config.json and model.safetensors. The weights depend on the seed and their names
// alone: models that differ in dtype only have the same weights up to rounding. Every matrix keeps
// the scale of what it multiplies, so activations neither vanish nor grow.
// Errors: InvalidArgument for options no service would load.
absl::Status WriteRandomModel(const RandomModelOptions& options, const std::string& out);

}  // namespace gatefold

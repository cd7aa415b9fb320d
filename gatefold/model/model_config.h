#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// Each way in which families differ is one named choice. A new family adds a value here, a kernel
// for it, and a line in the parser.
enum class NormKind { kRms };
enum class ActivationKind { kSiluGated };  // w2(silu(w1 x) * w3 x)
enum class AttentionKind { kGroupedQuery };
enum class GateKind {
  kAll,          // dense: every row visits every slice with weight 1
  kSoftmaxTopK,  // softmax over all experts, the k best, renormalised to sum 1
};
enum class RopeKind { kDefault, kLinear, kLlama3, kYarn };

// Rotary position embedding over the whole head, halves rotated against each other. Fields that
// `kind` does not use keep their defaults.
struct RopeConfig {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000;
  double factor = 1;
  int original_max_positions = 0;          // llama3, yarn
  double low_freq_factor = 1;              // llama3
  double high_freq_factor = 4;             // llama3
  double beta_fast = 32;                   // yarn
  double beta_slow = 1;                    // yarn
  std::optional<double> attention_factor;  // yarn
  double mscale = 0;                       // yarn; 0: not given
  double mscale_all_dim = 0;               // yarn; 0: not given
  bool truncate = true;                    // yarn
};

// What generation_config.json proposes; nothing where it is silent.
struct GenerationDefaults {
  std::optional<bool> do_sample;
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int> top_k;
  std::optional<double> min_p;
  std::optional<double> repetition_penalty;
};

// The shape of one model, checked: every number is within the bounds in model_config.cc and
// consistent with the others, and everything the checkpoint asks for is something we compute.
struct ModelConfig {
  std::string family;  // model_type: "mixtral", "llama", "mistral"
  NormKind norm = NormKind::kRms;
  ActivationKind activation = ActivationKind::kSiluGated;
  AttentionKind attention = AttentionKind::kGroupedQuery;
  GateKind gate = GateKind::kAll;

  int vocab_size = 0;
  int d_model = 0;
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int d_ff = 0;       // intermediate size, of one expert or of the dense MLP
  int n_experts = 0;  // 0: dense
  int top_k = 0;      // 0: dense
  int n_slices = 0;   // dense MLPs are served as this many experts; 0: sparse
  double norm_eps = 0;
  RopeConfig rope;
  int sliding_window = 0;  // keys a query sees, itself included; 0: all
  int max_positions = 0;   // prompt and output together
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // on q, k, v and o
  bool mlp_bias = false;

  std::vector<int32_t> eos_token_ids;  // ascending; generation_config.json before config.json
  std::optional<int32_t> bos_token_id;
  GenerationDefaults generation;

  bool sparse() const { return n_experts > 0; }
  // What a step sees: experts named (layer, expert) with expert in [0, experts_per_layer()), of
  // which each row visits experts_per_row().
  int experts_per_layer() const { return sparse() ? n_experts : n_slices; }
  int experts_per_row() const { return sparse() ? top_k : n_slices; }
  int q_width() const { return n_heads * head_dim; }
  int kv_width() const { return n_kv_heads * head_dim; }
};

struct ModelLoadOptions {
  // In how many parts a dense MLP is served. It shows in the last bits of the numbers, so it
  // belongs to the model and its fingerprint, and all services must agree on it.
  int n_slices = 8;
};

// `generation_json`: content of generation_config.json; empty if there is none.
// Old and new spellings of config.json are the same to it. Errors: InvalidArgument (missing,
// out of bounds, inconsistent; the message names key and numbers), Unimplemented (a feature we do
// not compute; the message names it).
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_json,
                                             absl::string_view generation_json,
                                             const ModelLoadOptions& options = {});

// From DIR/config.json and, if present, DIR/generation_config.json.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& dir,
                                            const ModelLoadOptions& options = {});

// 32 hex digits over everything that changes the numbers: not over token ids and sampling defaults.
std::string ConfigFingerprint(const ModelConfig& config);

}  // namespace gatefold

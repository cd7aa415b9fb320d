#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cli/plan/weight_format.h"

namespace gatefold::cli {

// The sizes of a model, which is all that planning needs: also of families that are not served yet.
// Parameters are those of matrices; norms and biases (less than a thousandth) are left out.
struct Architecture {
  std::string family;  // model_type
  int d_model = 0;
  int n_layers = 0;

  // What expert-services hold. A dense model's MLPs are slices that every row visits.
  int n_routed_layers = 0;  // layers whose MLP is made of experts
  int n_experts = 0;        // of each of those
  int top_k = 0;
  int64_t expert_params = 0;  // one expert: gate, up and down projection

  // What attention-services hold, each all of it. Shared experts and the dense layers of a mixture
  // are there: every row needs them.
  int64_t attention_params = 0;  // projections, all layers
  int64_t shared_params = 0;     // shared experts, all layers
  int64_t dense_params = 0;      // MLPs of layers without experts, in a mixture
  int64_t embedding_params = 0;  // read by the row
  int64_t lm_head_params = 0;    // read whole by every step, also if it is tied to the embedding
  bool tied = false;             // LM head and embedding are one matrix

  int64_t gate_params = 0;  // what the router holds, all layers

  int kv_floats = 0;        // of one position and layer in the KV cache
  int64_t score_flops = 0;  // of one row for each position it looks at, per layer
  std::string stored_as;    // weight format of the checkpoint

  int64_t n_params() const {
    return expert_params * n_experts * n_routed_layers + attention_params + shared_params +
           dense_params + embedding_params + (tied ? 0 : lm_head_params) + gate_params;
  }
  // Read for one token.
  int64_t n_active_params() const {
    return expert_params * top_k * n_routed_layers + attention_params + shared_params +
           dense_params + lm_head_params + gate_params;
  }
  double ExpertBytes(const WeightFormat& format) const {
    return static_cast<double>(expert_params) * format.bytes_per_weight;
  }
  // Of an attention-service without its KV cache.
  double AttentionBytes(const WeightFormat& format) const;
  // Of one step, without the KV cache: all of the above but the embedding.
  double AttentionBytesRead(const WeightFormat& format) const;
};

// From the text of a config.json. `n_slices`: parts of a dense model's MLP.
// Errors: InvalidArgument (no JSON; a key is missing or out of bounds, and which), Unimplemented
// (another family).
absl::StatusOr<Architecture> ReadArchitecture(absl::string_view config_json, int n_slices);

}  // namespace gatefold::cli

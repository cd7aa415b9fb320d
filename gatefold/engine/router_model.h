#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gatefold/kernels/packed_matrix.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {

// The weights a router holds: norms before the experts, and gates. Immutable.
class RouterModel {
 public:
  // Copies its pieces out of the checkpoint. InvalidArgument if they hold NaN or infinity, which a
  // gate would turn into a choice of experts that means nothing.
  static absl::StatusOr<std::unique_ptr<RouterModel>> Load(const ModelWeights& weights);

  const ModelConfig& config() const { return config_; }
  const float* norm(int layer) const { return layers_[layer].norm.as<float>(); }  // [d_model]
  // [n_experts, d_model]; sparse models only.
  const PackedMatrix& gate(int layer) const { return layers_[layer].gate; }

 private:
  struct Layer {
    Buffer norm;
    PackedMatrix gate;
  };
  ModelConfig config_;
  std::vector<Layer> layers_;
};

}  // namespace gatefold

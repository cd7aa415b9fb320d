#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/model/expert_layout.h"
#include "gatefold/model/model_config.h"
#include "gatefold/model/model_weights.h"

namespace gatefold {

inline constexpr char kManifestFile[] = "gatefold-manifest.json";

// What a model's weights are, without the weights: the fingerprint that services compare, the types
// of the experts and the digest of each. It lies beside config.json and is believed as that is;
// what a shard fetches from others must have these digests. Of a dense model it is about one number
// of slices.
struct ModelManifest {
  std::string model_fingerprint;  // of ModelWeights
  DType dtype = DType::kF32;      // of the experts' matrices
  DType bias_dtype = DType::kF32;
  std::vector<std::string> digests;  // [layer, expert], see ExpertDigest

  // Reads all experts. Unimplemented, naming one: biases are of several types.
  static absl::StatusOr<ModelManifest> Make(const ModelWeights& weights, ThreadPool* threads);

  // Of the experts of any layer; 0 <= expert < config.experts_per_layer().
  ExpertLayout::Sizes SizesOf(const ModelConfig& config, int expert) const;

  std::string ToJson(const ModelConfig& config) const;
  // `config`: the model's, which the text must be about. InvalidArgument, naming the field.
  static absl::StatusOr<ModelManifest> Parse(absl::string_view json, absl::string_view what,
                                             const ModelConfig& config);
  // DIR/gatefold-manifest.json; nullopt where there is none.
  static absl::StatusOr<std::optional<ModelManifest>> Read(const std::string& dir,
                                                           const ModelConfig& config);
};

}  // namespace gatefold

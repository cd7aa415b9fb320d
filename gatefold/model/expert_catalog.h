#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "gatefold/model/expert_layout.h"
#include "gatefold/model/model_manifest.h"
#include "gatefold/model/model_weights.h"

namespace gatefold {

// What a shard knows of a model's experts: from the weights, from the manifest where the weights
// are absent, or from both. Immutable. Threads: safe.
class ExpertCatalog {
 public:
  // A folder without any *.safetensors file has no weights; then it must have a manifest. Errors:
  // those of ModelWeights and ModelManifest; NotFound: neither; FailedPrecondition: the manifest is
  // of other weights than those that are there.
  static absl::StatusOr<std::unique_ptr<ExpertCatalog>> Open(const std::string& dir,
                                                             const ModelLoadOptions& options);
  ExpertCatalog(std::unique_ptr<ModelWeights> weights, std::optional<ModelManifest> manifest);
  // Without weights.
  ExpertCatalog(const ModelConfig& config, const ModelManifest& manifest);

  const ModelConfig& config() const { return config_; }
  const std::string& model_fingerprint() const {
    return weights_ != nullptr ? weights_->Fingerprint() : manifest_->model_fingerprint;
  }
  DType dtype() const { return weights_ != nullptr ? weights_->expert_dtype() : manifest_->dtype; }

  // 0 <= layer < n_layers, 0 <= expert < config().experts_per_layer().
  ExpertLayout Layout(int layer, int expert) const;
  uint64_t ExpertBytes(int layer, int expert) const { return Layout(layer, expert).size_bytes(); }
  // Null: nobody has said what it must be, so nothing may be fetched.
  const std::string* Digest(int layer, int expert) const;
  bool has_digests() const { return manifest_.has_value(); }

  const ModelWeights* weights() const { return weights_.get(); }  // null: absent

 private:
  const std::unique_ptr<ModelWeights> weights_;
  const std::optional<ModelManifest> manifest_;
  const ModelConfig config_;
};

}  // namespace gatefold

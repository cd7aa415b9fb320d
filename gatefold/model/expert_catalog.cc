#include "gatefold/model/expert_catalog.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

namespace {

// Some weights, or a part of them: half a download is not taken for a folder without any.
bool HasWeights(const std::string& dir) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(dir, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".safetensors") return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertCatalog>> ExpertCatalog::Open(
    const std::string& dir, const ModelLoadOptions& options) {
  GF_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(dir, options));
  GF_ASSIGN_OR_RETURN(std::optional<ModelManifest> manifest, ModelManifest::Read(dir, config));
  if (!HasWeights(dir)) {
    if (manifest.has_value()) return std::make_unique<ExpertCatalog>(config, *manifest);
    return absl::NotFoundError(absl::StrCat(dir, " has neither weights (*.safetensors) nor ",
                                            kManifestFile,
                                            ", which says what other shards must send; `gatefold "
                                            "inspect --manifest` makes it where the weights are"));
  }
  GF_ASSIGN_OR_RETURN(std::unique_ptr<ModelWeights> weights, ModelWeights::Open(dir, options));
  if (manifest.has_value() && manifest->model_fingerprint != weights->Fingerprint()) {
    return absl::FailedPreconditionError(absl::StrCat(
        dir, "/", kManifestFile, ": model_fingerprint is ", manifest->model_fingerprint,
        ", the weights beside it have ", weights->Fingerprint(), "; make the file again"));
  }
  return std::make_unique<ExpertCatalog>(std::move(weights), std::move(manifest));
}

ExpertCatalog::ExpertCatalog(std::unique_ptr<ModelWeights> weights,
                             std::optional<ModelManifest> manifest)
    : weights_(std::move(weights)), manifest_(std::move(manifest)), config_(weights_->config()) {}

ExpertCatalog::ExpertCatalog(const ModelConfig& config, const ModelManifest& manifest)
    : manifest_(manifest), config_(config) {}

ExpertLayout ExpertCatalog::Layout(int layer, int expert) const {
  if (weights_ != nullptr) return ExpertLayout::Of(weights_->Expert(layer, expert));
  return ExpertLayout(manifest_->SizesOf(config_, expert));
}

const std::string* ExpertCatalog::Digest(int layer, int expert) const {
  if (!manifest_.has_value()) return nullptr;
  return &manifest_->digests[static_cast<size_t>(layer) * config_.experts_per_layer() + expert];
}

}  // namespace gatefold

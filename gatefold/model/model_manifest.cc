#include "gatefold/model/model_manifest.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {
namespace {

constexpr int kFormat = 1;
// 64 digits and punctuation for each of the 500,000 experts that a model may have at most.
constexpr JsonLimits kLimits = {
    .max_bytes = size_t{40} << 20, .max_depth = 8, .max_values = 1'000'000};

bool IsHex(absl::string_view text, size_t size) {
  return text.size() == size && std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

std::optional<DType> DTypeNamed(absl::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    if (DTypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

// Reads members of one object; the first that is wrong is remembered.
class MemberReader {
 public:
  MemberReader(const nlohmann::json& object, absl::string_view what)
      : object_(object), what_(what) {}

  std::string Text(const char* key) {
    const auto found = object_.find(key);
    if (found != object_.end() && found->is_string()) return found->get<std::string>();
    Refuse(key, "is missing or no string");
    return "";
  }
  DType Type(const char* key) {
    const std::string name = Text(key);
    const std::optional<DType> dtype = DTypeNamed(name);
    if (!dtype.has_value()) Refuse(key, "must be float32, bfloat16 or float16");
    return dtype.value_or(DType::kF32);
  }
  void Refuse(absl::string_view key, absl::string_view why) {
    status_.Update(absl::InvalidArgumentError(absl::StrCat(what_, ": ", key, " ", why)));
  }
  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json& object_;
  const absl::string_view what_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<ModelManifest> ModelManifest::Make(const ModelWeights& weights,
                                                  ThreadPool* threads) {
  const ModelConfig& config = weights.config();
  const int per_layer = config.experts_per_layer();
  ModelManifest manifest;
  manifest.model_fingerprint = weights.Fingerprint();
  manifest.dtype = weights.expert_dtype();
  if (config.mlp_bias) manifest.bias_dtype = weights.Expert(0, 0).b1.dtype;
  manifest.digests.resize(static_cast<size_t>(config.n_layers) * per_layer);
  absl::Mutex mu;
  absl::Status status;
  ParallelFor(threads, static_cast<int64_t>(manifest.digests.size()), 1,
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                  const int layer = static_cast<int>(i / per_layer),
                            expert = static_cast<int>(i % per_layer);
                  const ExpertWeightsView view = weights.Expert(layer, expert);
                  const ExpertLayout layout = ExpertLayout::Of(view);
                  if (layout != ExpertLayout(manifest.SizesOf(config, expert))) {
                    absl::MutexLock lock(&mu);
                    status.Update(absl::UnimplementedError(absl::StrCat(
                        "expert ", expert, " of layer ", layer, " has biases of another type")));
                    continue;
                  }
                  manifest.digests[i] = ExpertDigest::Of(layout, RowsOf(view));
                  weights.DropExpert(layer, expert);
                }
              });
  if (!status.ok()) return status;
  return manifest;
}

ExpertLayout::Sizes ModelManifest::SizesOf(const ModelConfig& config, int expert) const {
  ExpertLayout::Sizes sizes;
  sizes.d_model = config.d_model;
  sizes.d_ff = config.d_ff;
  if (!config.sparse()) {
    const SliceRange slice = DenseSlice(config.d_ff, config.n_slices, expert);
    sizes.d_ff = slice.end - slice.begin;
  }
  sizes.dtype = dtype;
  sizes.has_b13 = config.mlp_bias;
  sizes.has_b2 = config.mlp_bias && expert == 0;
  sizes.bias_dtype = bias_dtype;
  return sizes;
}

std::string ModelManifest::ToJson(const ModelConfig& config) const {
  nlohmann::ordered_json json = {{"format", kFormat},
                                 {"model_fingerprint", model_fingerprint},
                                 {"config_fingerprint", ConfigFingerprint(config)},
                                 {"n_slices", config.n_slices},
                                 {"expert_dtype", std::string(DTypeName(dtype))},
                                 {"bias_dtype", std::string(DTypeName(bias_dtype))},
                                 {"expert_sha256", nlohmann::ordered_json::array()}};
  for (int layer = 0; layer < config.n_layers; ++layer) {
    const auto first = digests.begin() + static_cast<int64_t>(layer) * config.experts_per_layer();
    json["expert_sha256"].push_back(
        std::vector<std::string>(first, first + config.experts_per_layer()));
  }
  return json.dump(1) + "\n";
}

absl::StatusOr<ModelManifest> ModelManifest::Parse(absl::string_view text, absl::string_view what,
                                                   const ModelConfig& config) {
  GF_ASSIGN_OR_RETURN(const nlohmann::json json, ParseStrictJson(text, what, kLimits));
  if (!json.is_object())
    return absl::InvalidArgumentError(absl::StrCat(what, ": is not an object"));
  ModelManifest manifest;
  MemberReader read(json, what);
  if (json.value("format", nlohmann::json()) != kFormat) {
    read.Refuse("format", absl::StrCat("must be ", kFormat));
  }
  manifest.model_fingerprint = read.Text("model_fingerprint");
  if (!IsHex(manifest.model_fingerprint, 32)) {
    read.Refuse("model_fingerprint", "must be 32 hexadecimal digits");
  }
  if (read.Text("config_fingerprint") != ConfigFingerprint(config)) {
    read.Refuse("config_fingerprint",
                "is that of another configuration than config.json and --n-slices give; make the "
                "file again");
  }
  manifest.dtype = read.Type("expert_dtype");
  manifest.bias_dtype = read.Type("bias_dtype");
  GF_RETURN_IF_ERROR(read.status());
  const auto layers = json.find("expert_sha256");
  const auto right_size = [](const nlohmann::json& list, int size) {
    return list.is_array() && list.size() == static_cast<size_t>(size);
  };
  if (layers == json.end() || !right_size(*layers, config.n_layers)) {
    read.Refuse("expert_sha256",
                absl::StrCat("must have ", config.n_layers, " lists, one for each layer"));
    return read.status();
  }
  for (int layer = 0; layer < config.n_layers; ++layer) {
    const nlohmann::json& list = (*layers)[layer];
    const std::string name = absl::StrCat("expert_sha256[", layer, "]");
    if (!right_size(list, config.experts_per_layer())) {
      read.Refuse(name, absl::StrCat("must have ", config.experts_per_layer(), " digests"));
      return read.status();
    }
    for (const nlohmann::json& digest : list) {
      if (!digest.is_string() || !IsHex(digest.get_ref<const std::string&>(), 64)) {
        read.Refuse(name, "has something else than 64 hexadecimal digits");
        return read.status();
      }
      manifest.digests.push_back(digest.get<std::string>());
    }
  }
  return manifest;
}

absl::StatusOr<std::optional<ModelManifest>> ModelManifest::Read(const std::string& dir,
                                                                 const ModelConfig& config) {
  const std::string path = absl::StrCat(dir, "/", kManifestFile);
  absl::StatusOr<std::string> text = ReadSmallFile(path, kLimits.max_bytes);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  GF_RETURN_IF_ERROR(text.status());
  GF_ASSIGN_OR_RETURN(ModelManifest manifest, Parse(*text, path, config));
  return manifest;
}

}  // namespace gatefold

#include "cli/plan/architecture.h"

#include <algorithm>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold::cli {
namespace {

using nlohmann::json;

// Enough for any model there will be, and products of a few of them fit 64 bits.
constexpr int64_t kMaxWidth = 1 << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxExperts = 1 << 20;  // of all layers together: a plan is made over them

constexpr const char* kFamilies[] = {"deepseek_v2", "deepseek_v3", "gpt_oss",  "llama",
                                     "mistral",     "mixtral",     "olmoe",    "qwen2",
                                     "qwen2_moe",   "qwen3",       "qwen3_moe"};

// Numbers of one object; null counts as absent. The first error sticks.
class Fields {
 public:
  explicit Fields(const json& object) : object_(object) {}

  const absl::Status& status() const { return status_; }
  const json* Find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  int64_t Int(const char* key, int64_t low, int64_t high) {
    if (Find(key) != nullptr) return IntOr(key, low, low, high);
    status_.Update(absl::InvalidArgumentError(absl::StrCat("config.json: ", key, " is missing")));
    return low;
  }
  int64_t IntOr(const char* key, int64_t fallback, int64_t low, int64_t high) {
    const json* value = Find(key);
    if (value == nullptr) return fallback;
    const double number = value->is_number() ? value->get<double>() : -1e300;
    if (value->is_number_integer() && number >= static_cast<double>(low) &&
        number <= static_cast<double>(high)) {
      return value->get<int64_t>();
    }
    status_.Update(absl::InvalidArgumentError(
        absl::StrCat("config.json: ", key, " is ", PrintableValue(*value),
                     ", must be a whole number of ", low, " to ", high)));
    return low;
  }
  bool BoolOr(const char* key, bool fallback) const {
    const json* value = Find(key);
    return value != nullptr && value->is_boolean() ? value->get<bool>() : fallback;
  }
  std::string StringOr(const char* key, const char* fallback) const {
    const json* value = Find(key);
    return value != nullptr && value->is_string() ? value->get<std::string>() : fallback;
  }
  void Refuse(absl::Status status) { status_.Update(std::move(status)); }

 private:
  const json& object_;
  absl::Status status_;
};

int64_t GatedMlp(int64_t d_model, int64_t d_ff) { return 3 * d_model * d_ff; }

// Keys and values of the heads that have them.
void ReadGroupedQuery(Fields* fields, Architecture* a) {
  const int64_t heads = fields->Int("num_attention_heads", 1, kMaxHeads);
  // What is left out: as many as query heads, but for two families (model_config.cc).
  const bool eight = a->family == "mistral" || a->family == "mixtral";
  const int64_t kv_heads =
      fields->IntOr("num_key_value_heads", eight ? std::min<int64_t>(8, heads) : heads, 1, heads);
  const int64_t head_dim = fields->IntOr("head_dim", a->d_model / heads, 1, kMaxHeads);
  const int64_t of_layer = 2 * a->d_model * heads * head_dim +    // q, o
                           2 * a->d_model * kv_heads * head_dim;  // k, v
  a->attention_params = of_layer * a->n_layers;
  a->kv_floats = static_cast<int>(2 * kv_heads * head_dim);
  a->score_flops = 4 * heads * head_dim;  // a product and a sum for the score, and for the value
}

// Multi-head latent attention: what is cached is the compressed row and one rotated key part, and
// the projections out of it are absorbed into the query's and the output's.
void ReadLatent(Fields* fields, Architecture* a) {
  const int64_t heads = fields->Int("num_attention_heads", 1, kMaxHeads);
  const int64_t q_rank = fields->IntOr("q_lora_rank", 0, 0, kMaxWidth);
  const int64_t kv_rank = fields->Int("kv_lora_rank", 1, kMaxWidth / 16);
  const int64_t nope = fields->Int("qk_nope_head_dim", 1, kMaxHeads);
  const int64_t rope = fields->Int("qk_rope_head_dim", 1, kMaxHeads);
  const int64_t value = fields->Int("v_head_dim", 1, kMaxHeads);
  const int64_t q = q_rank == 0 ? a->d_model * heads * (nope + rope)
                                : a->d_model * q_rank + q_rank * heads * (nope + rope);
  const int64_t of_layer = q + a->d_model * (kv_rank + rope) + kv_rank * heads * (nope + value) +
                           heads * value * a->d_model;
  a->attention_params = of_layer * a->n_layers;
  a->kv_floats = static_cast<int>(kv_rank + rope);
  a->score_flops = 2 * heads * (kv_rank + rope + kv_rank);
}

// How many layers have experts.
int ReadRoutedLayers(Fields* fields, const std::string& family, int n_layers) {
  const int64_t first = fields->IntOr("first_k_dense_replace", 0, 0, n_layers);
  const int64_t every = family == "qwen2_moe" || family == "qwen3_moe"
                            ? fields->IntOr("decoder_sparse_step", 1, 1, kMaxLayers)
                            : fields->IntOr("moe_layer_freq", 1, 1, kMaxLayers);
  const int64_t phase = family == "deepseek_v2" || family == "deepseek_v3" ? 0 : 1;
  const json* dense = fields->Find("mlp_only_layers");
  int n = 0;
  for (int layer = 0; layer < n_layers; ++layer) {
    const bool listed = dense != nullptr && dense->is_array() &&
                        std::find(dense->begin(), dense->end(), layer) != dense->end();
    n += layer >= first && (layer + phase) % every == 0 && !listed;
  }
  return n;
}

void ReadExperts(Fields* fields, Architecture* a) {
  const char* const count = fields->Find("n_routed_experts") != nullptr    ? "n_routed_experts"
                            : fields->Find("num_local_experts") != nullptr ? "num_local_experts"
                                                                           : "num_experts";
  const bool own_width = fields->Find("moe_intermediate_size") != nullptr;
  a->n_routed_layers = ReadRoutedLayers(fields, a->family, a->n_layers);
  a->n_experts =
      static_cast<int>(fields->Int(count, 1, kMaxExperts / std::max(1, a->n_routed_layers)));
  a->top_k = static_cast<int>(fields->Int("num_experts_per_tok", 1, a->n_experts));
  const int64_t width =
      fields->Int(own_width ? "moe_intermediate_size" : "intermediate_size", 1, kMaxWidth);
  a->expert_params = GatedMlp(a->d_model, width);
  a->gate_params = static_cast<int64_t>(a->n_experts) * a->d_model * a->n_routed_layers;
  const int64_t shared = fields->IntOr("shared_expert_intermediate_size", 0, 0, kMaxWidth) +
                         fields->IntOr("n_shared_experts", 0, 0, 64) * width;
  a->shared_params = GatedMlp(a->d_model, shared) * a->n_routed_layers;
  const int n_dense = a->n_layers - a->n_routed_layers;
  if (n_dense > 0) {
    const int64_t dense_width = fields->Int("intermediate_size", 1, kMaxWidth);
    a->dense_params = GatedMlp(a->d_model, dense_width) * n_dense;
  }
  if (a->n_routed_layers == 0) {
    fields->Refuse(absl::InvalidArgumentError("config.json: no layer of this mixture has experts"));
  }
}

std::string StoredAs(const Fields& fields) {
  const json* quantised = fields.Find("quantization_config");
  if (quantised != nullptr && quantised->is_object()) {
    return Fields(*quantised).StringOr("quant_method", "quantised");
  }
  return fields.StringOr("torch_dtype", fields.StringOr("dtype", "bfloat16").c_str());
}

}  // namespace

double Architecture::AttentionBytesRead(const WeightFormat& format) const {
  const double plain = format.quantised ? 2 : format.bytes_per_weight;
  const double projections = format.experts_only ? plain : format.bytes_per_weight;
  return static_cast<double>(attention_params) * projections +
         static_cast<double>(shared_params + dense_params) * format.bytes_per_weight +
         static_cast<double>(lm_head_params) * plain;
}

double Architecture::AttentionBytes(const WeightFormat& format) const {
  const double plain = format.quantised ? 2 : format.bytes_per_weight;
  return AttentionBytesRead(format) + (tied ? 0 : static_cast<double>(embedding_params) * plain);
}

absl::StatusOr<Architecture> ReadArchitecture(absl::string_view config_json, int n_slices) {
  GF_ASSIGN_OR_RETURN(const json object, ParseStrictJson(config_json, "config.json"));
  if (!object.is_object()) return absl::InvalidArgumentError("config.json is not a JSON object");
  Fields fields(object);
  Architecture a;
  a.family = fields.StringOr("model_type", "");
  if (std::find(std::begin(kFamilies), std::end(kFamilies), a.family) == std::end(kFamilies)) {
    return absl::UnimplementedError(
        absl::StrCat("config.json: model_type is \"", PrintableName(a.family),
                     "\"; what can be planned: ", absl::StrJoin(kFamilies, ", ")));
  }
  a.d_model = static_cast<int>(fields.Int("hidden_size", 1, kMaxWidth));
  a.n_layers = static_cast<int>(fields.Int("num_hidden_layers", 1, kMaxLayers));
  a.tied = fields.BoolOr("tie_word_embeddings", false);
  a.embedding_params = fields.Int("vocab_size", 1, kMaxVocab) * a.d_model;
  a.lm_head_params = a.embedding_params;
  if (a.family == "deepseek_v2" || a.family == "deepseek_v3") {
    ReadLatent(&fields, &a);
  } else {
    ReadGroupedQuery(&fields, &a);
  }
  const bool dense =
      a.family == "llama" || a.family == "mistral" || a.family == "qwen2" || a.family == "qwen3";
  if (dense) {
    a.n_routed_layers = a.n_layers;
    a.n_experts = a.top_k = n_slices;
    a.expert_params = GatedMlp(a.d_model, fields.Int("intermediate_size", 1, kMaxWidth)) / n_slices;
    if (int64_t{n_slices} * a.n_layers > kMaxExperts) {
      return absl::InvalidArgumentError(
          absl::StrCat(a.n_layers, " layers of ", n_slices, " slices are more than ", kMaxExperts));
    }
  } else {
    ReadExperts(&fields, &a);
  }
  a.stored_as = StoredAs(fields);
  GF_RETURN_IF_ERROR(fields.status());
  return a;
}

}  // namespace gatefold::cli

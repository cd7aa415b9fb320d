#include "gatefold/model/model_config.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/sha256.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/model/config_reader.h"
#include "gatefold/model/rope_config.h"

namespace gatefold {
namespace {

using nlohmann::json;

constexpr JsonLimits kJsonLimits = {
    .max_bytes = size_t{1} << 20, .max_depth = 32, .max_values = 100'000};

// What the members of a family leave unsaid, and which keys have a meaning for it.
struct Family {
  const char* model_type;
  const char* architecture;
  double rms_norm_eps;
  double rope_theta;
  int max_positions;
  int n_kv_heads;  // 0: as many as query heads
  bool sparse;
  bool has_sliding_window;
  bool has_biases;
  int sliding_window;  // 0: none
};
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", 1e-6, 1e4, 2048, 0, false, false, true, 0},
    {"mistral", "MistralForCausalLM", 1e-6, 1e4, 131072, 8, false, true, false, 4096},
    {"mixtral", "MixtralForCausalLM", 1e-5, 1e6, 131072, 8, true, true, false, 0},
};

absl::StatusOr<Family> FindFamily(ConfigReader* reader) {
  const std::string type = reader->StringOr("model_type", "");
  const json* architectures = reader->Find("architectures");
  GF_RETURN_IF_ERROR(reader->status());
  if (type.empty()) return absl::InvalidArgumentError("config.json: model_type is missing");
  for (const Family& family : kFamilies) {
    if (type != family.model_type) continue;
    if (architectures == nullptr) return family;
    if (!architectures->is_array() || architectures->empty() || !(*architectures)[0].is_string()) {
      return absl::InvalidArgumentError("config.json: architectures is not a list of names");
    }
    const std::string& name = (*architectures)[0].get_ref<const std::string&>();
    if (name == family.architecture) return family;
    return absl::UnimplementedError(absl::StrCat("config.json: architecture \"",
                                                 PrintableName(name), "\" is not supported; ", type,
                                                 " models are served as ", family.architecture));
  }
  return absl::UnimplementedError(absl::StrCat("config.json: model_type \"", PrintableName(type),
                                               "\" is not supported; llama, mistral and mixtral "
                                               "are"));
}

void ReadAttentionShape(const Family& family, ConfigReader* reader, ModelConfig* config) {
  config->n_heads = reader->RequiredInt("num_attention_heads");
  const bool all = family.n_kv_heads == 0 || reader->IsNull("num_key_value_heads");
  config->n_kv_heads =
      reader->IntOr("num_key_value_heads", all ? config->n_heads : family.n_kv_heads);
  if (!reader->status().ok()) return;
  if (config->n_heads % config->n_kv_heads != 0) {
    reader->RefuseValue(absl::StrCat("num_attention_heads ", config->n_heads,
                                     " is not a multiple of num_key_value_heads ",
                                     config->n_kv_heads));
  }
  if (!reader->Has("head_dim") && config->d_model % config->n_heads != 0) {
    reader->RefuseValue(absl::StrCat("hidden_size ", config->d_model,
                                     " is not a multiple of num_attention_heads ", config->n_heads,
                                     " and head_dim is not given"));
  }
  config->head_dim = reader->IntOr("head_dim", config->d_model / config->n_heads);
  if (config->head_dim < 2 || config->head_dim % 2 != 0) {
    reader->RefuseValue(
        absl::StrCat("head_dim ", config->head_dim, " is not even: rotary embedding turns pairs"));
  }
}

void ReadExperts(ConfigReader* reader, const Family& family, const ModelLoadOptions& options,
                 ModelConfig* config) {
  config->d_ff = reader->RequiredInt("intermediate_size");
  if (family.sparse) {
    config->gate = GateKind::kSoftmaxTopK;
    config->n_experts = reader->RequiredInt("num_local_experts");
    config->top_k = reader->RequiredInt("num_experts_per_tok");
    if (config->top_k > config->n_experts) {
      reader->RefuseValue(absl::StrCat("num_experts_per_tok ", config->top_k,
                                       " exceeds num_local_experts ", config->n_experts));
    }
    return;
  }
  config->gate = GateKind::kAll;
  config->n_slices = options.n_slices;
  const int most = std::min(config->d_ff, 1024);
  if (reader->status().ok() && (options.n_slices < 1 || options.n_slices > most)) {
    reader->RefuseValue(absl::StrCat("n_slices is ", options.n_slices, "; with intermediate_size ",
                                     config->d_ff, " it may be 1 to ", most));
  }
}

// Either every layer slides, or none does.
void ReadSlidingWindow(ConfigReader* reader, const Family& family, ModelConfig* config) {
  config->sliding_window =
      reader->IntOr("sliding_window", reader->IsNull("sliding_window") ? 0 : family.sliding_window);
  if (config->sliding_window > 0 && !family.has_sliding_window) {
    reader->RefuseFeature(absl::StrCat("sliding_window in a ", family.model_type, " model"));
  }
  const json* layer_types = reader->Find("layer_types");
  if (layer_types == nullptr) return;
  if (!layer_types->is_array()) return reader->RefuseValue("layer_types is not a list");
  const std::string expected = config->sliding_window > 0 ? "sliding_attention" : "full_attention";
  for (const json& type : *layer_types) {
    if (type.is_string() && type.get_ref<const std::string&>() == expected) continue;
    return reader->RefuseFeature(absl::StrCat("a layer_types entry other than \"", expected, "\""));
  }
}

void ReadBiases(ConfigReader* reader, const Family& family, ModelConfig* config) {
  config->attention_bias = reader->BoolOr("attention_bias", false);
  config->mlp_bias = reader->BoolOr("mlp_bias", false);
  if (family.has_biases) return;
  if (config->attention_bias) {
    reader->RefuseFeature(absl::StrCat("attention_bias in a ", family.model_type, " model"));
  }
  if (config->mlp_bias) {
    reader->RefuseFeature(absl::StrCat("mlp_bias in a ", family.model_type, " model"));
  }
}

void ReadActivation(ConfigReader* reader) {
  const std::string name = reader->StringOr("hidden_act", "silu");
  if (name == "silu" || name == "swish") return;  // two names of one function
  reader->RefuseFeature(absl::StrCat("hidden_act \"", PrintableName(name), "\""));
}

// Absent is not null: absent means the default of all three families, null means none.
void ReadTokenIds(const json& object, ConfigReader* reader, ConfigReader* generation,
                  ModelConfig* config) {
  if (reader->Has("bos_token_id")) config->bos_token_id = reader->IntOr("bos_token_id", 0);
  if (!object.contains("bos_token_id")) config->bos_token_id = 1;
  std::vector<int32_t> eos = reader->Ints("eos_token_id");
  if (!object.contains("eos_token_id")) eos = {2};
  if (generation->Has("eos_token_id")) eos = generation->Ints("eos_token_id");
  std::sort(eos.begin(), eos.end());
  eos.erase(std::unique(eos.begin(), eos.end()), eos.end());
  config->eos_token_ids = std::move(eos);
}

void ReadGenerationDefaults(ConfigReader* generation, GenerationDefaults* defaults) {
  if (generation->Has("do_sample")) defaults->do_sample = generation->BoolOr("do_sample", false);
  if (generation->Has("temperature")) {
    defaults->temperature = generation->RequiredReal("temperature");
  }
  if (generation->Has("top_p")) defaults->top_p = generation->RequiredReal("top_p");
  if (generation->Has("top_k")) defaults->top_k = generation->RequiredInt("top_k");
  if (generation->Has("min_p")) defaults->min_p = generation->RequiredReal("min_p");
  if (generation->Has("repetition_penalty")) {
    defaults->repetition_penalty = generation->RequiredReal("repetition_penalty");
  }
}

absl::Status CheckTokenIds(const ModelConfig& config) {
  const auto check = [&](const char* key, int32_t id) {
    if (id < config.vocab_size) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(key, " ", id, " is not below vocab_size ", config.vocab_size));
  };
  if (config.bos_token_id.has_value()) {
    GF_RETURN_IF_ERROR(check("bos_token_id", *config.bos_token_id));
  }
  for (int32_t id : config.eos_token_ids) GF_RETURN_IF_ERROR(check("eos_token_id", id));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view config_json,
                                             absl::string_view generation_json,
                                             const ModelLoadOptions& options) {
  GF_ASSIGN_OR_RETURN(const json object, ParseStrictJson(config_json, "config.json", kJsonLimits));
  GF_ASSIGN_OR_RETURN(const json generation_object,
                      ParseStrictJson(generation_json.empty() ? "{}" : generation_json,
                                      "generation_config.json", kJsonLimits));
  ConfigReader reader(object, "config.json");
  ConfigReader generation(generation_object, "generation_config.json");
  GF_ASSIGN_OR_RETURN(const Family family, FindFamily(&reader));
  reader.RefuseForeignFeatures();
  // With null, too, transformers lets a token see those after it.
  if (!reader.BoolOr("is_causal", !reader.IsNull("is_causal"))) {
    reader.RefuseFeature("is_causal false");
  }

  ModelConfig config;
  config.family = family.model_type;
  config.vocab_size = reader.RequiredInt("vocab_size");
  config.d_model = reader.RequiredInt("hidden_size");
  config.n_layers = reader.RequiredInt("num_hidden_layers");
  ReadAttentionShape(family, &reader, &config);
  ReadExperts(&reader, family, options, &config);
  ReadActivation(&reader);
  ReadBiases(&reader, family, &config);
  ReadSlidingWindow(&reader, family, &config);
  config.norm_eps = reader.RealOr("rms_norm_eps", family.rms_norm_eps);
  config.max_positions = reader.IntOr("max_position_embeddings", family.max_positions);
  config.tie_word_embeddings = reader.BoolOr("tie_word_embeddings", false);
  ReadTokenIds(object, &reader, &generation, &config);
  ReadGenerationDefaults(&generation, &config.generation);
  generation.RefuseForeignDefaults();
  GF_RETURN_IF_ERROR(reader.status());
  GF_RETURN_IF_ERROR(generation.status());
  GF_ASSIGN_OR_RETURN(config.rope,
                      ReadRopeConfig(&reader, family.rope_theta, config.max_positions));
  GF_RETURN_IF_ERROR(reader.status());
  GF_RETURN_IF_ERROR(CheckTokenIds(config));
  return config;
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& dir,
                                            const ModelLoadOptions& options) {
  GF_ASSIGN_OR_RETURN(const std::string config_json,
                      ReadSmallFile(absl::StrCat(dir, "/config.json"), kJsonLimits.max_bytes));
  auto generation_json =
      ReadSmallFile(absl::StrCat(dir, "/generation_config.json"), kJsonLimits.max_bytes);
  if (absl::IsNotFound(generation_json.status())) generation_json = std::string();
  GF_RETURN_IF_ERROR(generation_json.status());
  auto config = ParseModelConfig(config_json, *generation_json, options);
  if (!config.ok()) return Annotate(config.status(), dir);
  return config;
}

std::string ConfigFingerprint(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  Sha256 hash;
  hash.AddString(c.family);
  for (int64_t number : {static_cast<int64_t>(c.norm),
                         static_cast<int64_t>(c.activation),
                         static_cast<int64_t>(c.attention),
                         static_cast<int64_t>(c.gate),
                         static_cast<int64_t>(c.vocab_size),
                         static_cast<int64_t>(c.d_model),
                         static_cast<int64_t>(c.n_layers),
                         static_cast<int64_t>(c.n_heads),
                         static_cast<int64_t>(c.n_kv_heads),
                         static_cast<int64_t>(c.head_dim),
                         static_cast<int64_t>(c.d_ff),
                         static_cast<int64_t>(c.n_experts),
                         static_cast<int64_t>(c.top_k),
                         static_cast<int64_t>(c.n_slices),
                         static_cast<int64_t>(c.sliding_window),
                         static_cast<int64_t>(c.max_positions),
                         static_cast<int64_t>(c.tie_word_embeddings),
                         static_cast<int64_t>(c.attention_bias),
                         static_cast<int64_t>(c.mlp_bias),
                         static_cast<int64_t>(r.kind),
                         static_cast<int64_t>(r.original_max_positions),
                         static_cast<int64_t>(r.truncate)}) {
    hash.AddNumber(static_cast<uint64_t>(number));
  }
  for (double number :
       {c.norm_eps, r.theta, r.factor, r.low_freq_factor, r.high_freq_factor, r.beta_fast,
        r.beta_slow, r.attention_factor.value_or(-1), r.mscale, r.mscale_all_dim}) {
    hash.AddString(absl::StrFormat("%.17g", number));
  }
  return hash.FinishHex().substr(0, 32);
}

}  // namespace gatefold

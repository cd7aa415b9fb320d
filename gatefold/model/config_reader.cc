#include "gatefold/model/config_reader.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/model/config_bounds.h"

namespace gatefold {
namespace {

using nlohmann::json;

constexpr size_t kMaxListed = 1024;

// Features of other models that leave no trace in the list of tensors, so that only their key
// tells: with `neutral` they change nothing.
struct ForeignFeature {
  const char* key;
  std::optional<double> neutral;
};
constexpr ForeignFeature kForeignFeatures[] = {
    {"quantization_config", {}},
    {"compression_config", {}},
    {"partial_rotary_factor", 1},
    {"attn_logit_softcapping", {}},
    {"final_logit_softcapping", {}},
    {"clip_qkv", {}},
    {"attention_chunk_size", {}},
    {"no_rope_layers", {}},
    {"attention_multiplier", {}},
    {"embedding_multiplier", 1},
    {"residual_multiplier", 1},
    {"logits_scaling", 1},
    {"logit_scale", 1},
    {"per_layer_config", {}},
    {"transformers_weights", {}},  // the name of another file of weights
};

// What generation_config.json can ask of every request, and we do not do. `neutral` as above.
constexpr ForeignFeature kForeignDefaults[] = {
    {"num_beams", 1},
    {"num_beam_groups", 1},
    {"penalty_alpha", 0},
    {"typical_p", 1},
    {"epsilon_cutoff", 0},
    {"eta_cutoff", 0},
    {"diversity_penalty", 0},
    {"encoder_repetition_penalty", 1},
    {"no_repeat_ngram_size", 0},
    {"encoder_no_repeat_ngram_size", 0},
    {"guidance_scale", 1},
    {"bad_words_ids", {}},
    {"force_words_ids", {}},
    {"forced_bos_token_id", {}},
    {"forced_eos_token_id", {}},
    {"suppress_tokens", {}},
    {"begin_suppress_tokens", {}},
    {"forced_decoder_ids", {}},
    {"sequence_bias", {}},
    {"exponential_decay_length_penalty", {}},
    {"stop_strings", {}},
    {"watermarking_config", {}},
    {"min_length", 0},
    {"min_new_tokens", 0},
    {"top_h", {}},
    {"dola_layers", {}},
};

}  // namespace

ConfigReader::ConfigReader(const json& object, std::string what)
    : object_(object), what_(std::move(what)) {
  if (!object.is_object()) RefuseValue("is not a JSON object");
}

void ConfigReader::Refuse(absl::Status status) { status_.Update(status); }

void ConfigReader::RefuseValue(absl::string_view why) {
  Refuse(absl::InvalidArgumentError(absl::StrCat(what_, ": ", why)));
}

void ConfigReader::RefuseFeature(absl::string_view feature) {
  Refuse(absl::UnimplementedError(absl::StrCat(what_, ": ", feature, " is not supported")));
}

void ConfigReader::RefuseForeignFeatures() {
  for (const ForeignFeature& feature : kForeignFeatures) {
    const json* value = Find(feature.key);
    if (value == nullptr) continue;
    const bool idle = feature.neutral.has_value() && value->is_number() &&
                      value->get<double>() == *feature.neutral;
    if (!idle) RefuseFeature(feature.key);
  }
}

void ConfigReader::RefuseForeignDefaults() {
  for (const ForeignFeature& feature : kForeignDefaults) {
    const json* value = Find(feature.key);
    if (value == nullptr) continue;
    const bool nothing =
        value->is_structured() ? value->empty() : value->is_boolean() && !value->get<bool>();
    const bool idle = feature.neutral.has_value() && value->is_number() &&
                      value->get<double>() == *feature.neutral;
    if (!idle && !nothing) {
      Refuse(absl::UnimplementedError(
          absl::StrCat(what_, ": ", feature.key,
                       " is not supported; without that line the model is served, and samples "
                       "otherwise")));
    }
  }
}

const json* ConfigReader::Find(const char* key) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigReader::IsNull(const char* key) const {
  return object_.is_object() && object_.contains(key) && object_[key].is_null();
}

int ConfigReader::RequiredInt(const char* key) {
  const json* value = Find(key);
  if (value != nullptr) return CheckedInt(key, *value);
  RefuseValue(absl::StrCat(key, " is missing"));
  return 0;
}

int ConfigReader::IntOr(const char* key, int fallback) {
  const json* value = Find(key);
  return value == nullptr ? fallback : CheckedInt(key, *value);
}

double ConfigReader::RequiredReal(const char* key) {
  const json* value = Find(key);
  if (value != nullptr) return CheckedReal(key, *value);
  RefuseValue(absl::StrCat(key, " is missing"));
  return 0;
}

double ConfigReader::RealOr(const char* key, double fallback) {
  const json* value = Find(key);
  return value == nullptr ? fallback : CheckedReal(key, *value);
}

bool ConfigReader::BoolOr(const char* key, bool fallback) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  RefuseValue(absl::StrCat(key, " is ", PrintableValue(*value), ", not true or false"));
  return fallback;
}

std::string ConfigReader::StringOr(const char* key, const std::string& fallback) {
  const json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  RefuseValue(absl::StrCat(key, " is ", PrintableValue(*value), ", not a string"));
  return fallback;
}

std::vector<int32_t> ConfigReader::Ints(const char* key) {
  std::vector<int32_t> numbers;
  const json* value = Find(key);
  if (value == nullptr) return numbers;
  if (!value->is_array()) return {CheckedInt(key, *value)};
  if (value->size() > kMaxListed) {
    RefuseValue(absl::StrCat(key, " lists ", value->size(), " numbers; at most ", kMaxListed));
    return numbers;
  }
  for (const json& entry : *value) numbers.push_back(CheckedInt(key, entry));
  return numbers;
}

int ConfigReader::CheckedInt(const char* key, const json& value) {
  const IntBound& bound = IntBoundOf(key);
  if (!value.is_number_integer()) {
    RefuseValue(absl::StrCat(key, " is ", PrintableValue(value), ", not a whole number"));
    return static_cast<int>(bound.low);
  }
  // Numbers past the signed range are kept unsigned by the parser.
  const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX};
  const int64_t number = huge ? INT64_MAX : value.get<int64_t>();
  if (number >= bound.low && number <= bound.high) return static_cast<int>(number);
  RefuseValue(absl::StrCat(key, " is ", PrintableValue(value), "; it may be ", bound.low, " to ",
                           bound.high, " (", bound.reason, ")"));
  return static_cast<int>(bound.low);
}

double ConfigReader::CheckedReal(const char* key, const json& value) {
  const RealBound& bound = RealBoundOf(key);
  if (!value.is_number()) {
    RefuseValue(absl::StrCat(key, " is ", PrintableValue(value), ", not a number"));
    return bound.low;
  }
  const double number = value.get<double>();
  if (std::isfinite(number) && number >= bound.low && number <= bound.high) return number;
  RefuseValue(absl::StrCat(key, " is ", PrintableValue(value), "; it may be ", bound.low, " to ",
                           bound.high, " (", bound.reason, ")"));
  return bound.low;
}

}  // namespace gatefold

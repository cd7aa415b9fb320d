#include "gatefold/model/rope_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {
namespace {

using nlohmann::json;

// The dictionary that describes rotary embedding, in its old or its new place; null if none. An
// empty one says nothing.
const json* RopeDictionary(const ConfigReader& config) {
  const json* scaling = config.Find("rope_scaling");
  return scaling != nullptr && !scaling->empty() ? scaling : config.Find("rope_parameters");
}

void ReadLlama3(ConfigReader* dict, RopeConfig* rope) {
  rope->factor = dict->RequiredReal("factor");
  rope->low_freq_factor = dict->RequiredReal("low_freq_factor");
  rope->high_freq_factor = dict->RequiredReal("high_freq_factor");
  if (rope->high_freq_factor <= rope->low_freq_factor) {
    dict->RefuseValue(absl::StrCat("high_freq_factor ", rope->high_freq_factor,
                                   " must exceed low_freq_factor ", rope->low_freq_factor));
  }
}

void ReadYarn(ConfigReader* dict, int max_positions, RopeConfig* rope) {
  const double stretched = static_cast<double>(max_positions) / rope->original_max_positions;
  rope->factor = dict->RealOr("factor", stretched);
  if (rope->factor < 1) {
    dict->RefuseValue(absl::StrCat("factor is missing and max_position_embeddings ", max_positions,
                                   " is below original_max_position_embeddings ",
                                   rope->original_max_positions));
  }
  rope->beta_fast = dict->RealOr("beta_fast", 32);
  rope->beta_slow = dict->RealOr("beta_slow", 1);
  if (rope->beta_fast < rope->beta_slow) {
    dict->RefuseValue(
        absl::StrCat("beta_fast ", rope->beta_fast, " is below beta_slow ", rope->beta_slow));
  }
  if (dict->Has("attention_factor")) {
    rope->attention_factor = dict->RequiredReal("attention_factor");
  }
  rope->mscale = dict->RealOr("mscale", 0);
  rope->mscale_all_dim = dict->RealOr("mscale_all_dim", 0);
  // Null is not the same as left out: transformers takes it for false.
  rope->truncate = dict->BoolOr("truncate", !dict->IsNull("truncate"));
}

}  // namespace

absl::StatusOr<RopeConfig> ReadRopeConfig(ConfigReader* config, double default_theta,
                                          int max_positions) {
  RopeConfig rope;
  rope.theta = config->RealOr("rope_theta", default_theta);
  const json* object = RopeDictionary(*config);
  if (object == nullptr) return rope;

  ConfigReader dict(*object, "config.json: rope_scaling or rope_parameters");
  dict.RefuseForeignFeatures();
  rope.theta = dict.RealOr("rope_theta", rope.theta);
  const bool named = dict.Has("rope_type") || dict.Has("type");
  const std::string type = dict.StringOr("rope_type", dict.StringOr("type", "default"));
  if (!named && dict.Has("factor")) dict.RefuseValue("rope_type is missing");
  for (const char* layers : {"full_attention", "sliding_attention"}) {
    if (dict.Has(layers)) dict.RefuseFeature(absl::StrCat("a dictionary for ", layers));
  }
  // The key beside the dictionary counts before the one inside.
  rope.original_max_positions =
      config->IntOr("original_max_position_embeddings",
                    dict.IntOr("original_max_position_embeddings", max_positions));
  GF_RETURN_IF_ERROR(dict.status());
  GF_RETURN_IF_ERROR(config->status());
  if (type == "default") {
    rope.original_max_positions = 0;
  } else if (type == "linear") {
    rope.kind = RopeKind::kLinear;
    rope.factor = dict.RequiredReal("factor");
    rope.original_max_positions = 0;
  } else if (type == "llama3") {
    rope.kind = RopeKind::kLlama3;
    ReadLlama3(&dict, &rope);
  } else if (type == "yarn") {
    rope.kind = RopeKind::kYarn;
    ReadYarn(&dict, max_positions, &rope);
  } else {
    dict.RefuseFeature(absl::StrCat("rope_type \"", PrintableName(type), "\""));
  }
  GF_RETURN_IF_ERROR(dict.status());
  return rope;
}

}  // namespace gatefold

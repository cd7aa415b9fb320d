#include "router-service/gateway/model_info.h"

#include <utility>

namespace gatefold {
namespace {

SamplingDefaults DefaultsFrom(const GenerationDefaults& proposed) {
  SamplingDefaults defaults;
  if (proposed.temperature.has_value()) {
    defaults.temperature = static_cast<float>(*proposed.temperature);
  }
  if (proposed.do_sample.has_value() && !*proposed.do_sample) defaults.temperature = 0;
  if (proposed.top_p.has_value()) defaults.top_p = static_cast<float>(*proposed.top_p);
  if (proposed.top_k.has_value()) defaults.top_k = *proposed.top_k;
  if (proposed.min_p.has_value()) defaults.min_p = static_cast<float>(*proposed.min_p);
  if (proposed.repetition_penalty.has_value()) {
    defaults.repetition_penalty = static_cast<float>(*proposed.repetition_penalty);
  }
  return defaults;
}

// Embedding and head once each (once together if tied), attention and norms of every layer.
uint64_t SharedParameters(const ModelConfig& c) {
  const uint64_t d = c.d_model;
  const uint64_t embedding =
      static_cast<uint64_t>(c.vocab_size) * d * (c.tie_word_embeddings ? 1 : 2);
  uint64_t layer = 2 * d * (c.q_width() + c.kv_width()) + 2 * d;
  if (c.attention_bias) layer += c.q_width() + 2 * c.kv_width() + d;
  if (c.sparse()) layer += d * c.n_experts;
  return embedding + c.n_layers * layer + d;
}

uint64_t ParametersOfOneMlp(const ModelConfig& c) {
  const uint64_t weights = uint64_t{3} * c.d_model * c.d_ff;
  return c.mlp_bias ? weights + 2 * c.d_ff + c.d_model : weights;
}

}  // namespace

ModelInfo MakeModelInfo(std::string name, std::string fingerprint, const ModelConfig& config) {
  ModelInfo info;
  info.name = std::move(name);
  info.fingerprint = std::move(fingerprint);
  info.family = config.family;
  info.vocab_size = config.vocab_size;
  info.d_model = config.d_model;
  info.n_layers = config.n_layers;
  info.n_heads = config.n_heads;
  info.n_kv_heads = config.n_kv_heads;
  info.head_dim = config.head_dim;
  info.n_experts = config.n_experts;
  info.top_k = config.top_k;
  info.n_slices = config.n_slices;
  info.intermediate_size = config.d_ff;
  info.max_sequence_tokens = config.max_positions;
  info.eos_token_ids = config.eos_token_ids;
  info.bos_token_id = config.bos_token_id;
  const uint64_t mlp = ParametersOfOneMlp(config) * config.n_layers;
  info.parameters = SharedParameters(config) + mlp * (config.sparse() ? config.n_experts : 1);
  info.active_parameters = SharedParameters(config) + mlp * (config.sparse() ? config.top_k : 1);
  info.defaults = DefaultsFrom(config.generation);
  return info;
}

inference::v1::Model ToProto(const ModelInfo& info) {
  inference::v1::Model model;
  model.set_name(info.name);
  model.set_family(info.family);
  model.set_fingerprint(info.fingerprint);
  model.set_vocab_size(info.vocab_size);
  model.set_d_model(info.d_model);
  model.set_n_layers(info.n_layers);
  model.set_n_heads(info.n_heads);
  model.set_n_kv_heads(info.n_kv_heads);
  model.set_head_dim(info.head_dim);
  model.set_n_experts(info.n_experts);
  model.set_top_k(info.top_k);
  model.set_n_slices(info.n_slices);
  model.set_intermediate_size(info.intermediate_size);
  model.set_max_sequence_tokens(info.max_sequence_tokens);
  for (const int32_t id : info.eos_token_ids) model.add_eos_token_ids(id);
  if (info.bos_token_id.has_value()) model.set_bos_token_id(*info.bos_token_id);
  model.set_weight_dtype(info.weight_dtype);
  model.set_parameters(info.parameters);
  model.set_active_parameters(info.active_parameters);
  model.set_has_chat_template(info.has_chat_template);
  return model;
}

}  // namespace gatefold

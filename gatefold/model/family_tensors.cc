#include "gatefold/model/family_tensors.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace gatefold {
namespace {

std::string LayerPrefix(int layer) { return absl::StrCat("model.layers.", layer, "."); }

// Where a sparse layer's gate and experts are: the published name, or that of newer libraries.
std::string SparsePrefix(int layer, const WeightBinder& binder) {
  const std::string newer = absl::StrCat(LayerPrefix(layer), "mlp.");
  if (binder.Has(absl::StrCat(newer, "gate.weight"))) return newer;
  return absl::StrCat(LayerPrefix(layer), "block_sparse_moe.");
}

ExpertWeightsView BindDenseMlp(const ModelConfig& config, int layer, WeightBinder* binder) {
  const std::string mlp = absl::StrCat(LayerPrefix(layer), "mlp.");
  ExpertWeightsView weights;
  weights.w1 = binder->Matrix(absl::StrCat(mlp, "gate_proj.weight"), config.d_ff, config.d_model);
  weights.w3 = binder->Matrix(absl::StrCat(mlp, "up_proj.weight"), config.d_ff, config.d_model);
  weights.w2 = binder->Matrix(absl::StrCat(mlp, "down_proj.weight"), config.d_model, config.d_ff);
  if (config.mlp_bias) {
    weights.b1 = binder->Vector(absl::StrCat(mlp, "gate_proj.bias"), config.d_ff);
    weights.b3 = binder->Vector(absl::StrCat(mlp, "up_proj.bias"), config.d_ff);
    weights.b2 = binder->Vector(absl::StrCat(mlp, "down_proj.bias"), config.d_model);
  }
  return weights;
}

ExpertWeightsView BindNamedExpert(const ModelConfig& config, const std::string& experts, int expert,
                                  WeightBinder* binder) {
  const std::string prefix = absl::StrCat(experts, expert, ".");
  ExpertWeightsView weights;
  weights.w1 = binder->Matrix(absl::StrCat(prefix, "w1.weight"), config.d_ff, config.d_model);
  weights.w3 = binder->Matrix(absl::StrCat(prefix, "w3.weight"), config.d_ff, config.d_model);
  weights.w2 = binder->Matrix(absl::StrCat(prefix, "w2.weight"), config.d_model, config.d_ff);
  return weights;
}

// One tensor for all experts of a layer: the gate's rows first, then the rows of up.
void BindFusedExperts(const ModelConfig& config, const std::string& experts, WeightBinder* binder,
                      std::vector<ExpertWeightsView>* mlps) {
  const auto gate_up = binder->Stack(absl::StrCat(experts, "gate_up_proj"), config.n_experts,
                                     int64_t{2} * config.d_ff, config.d_model);
  const auto down = binder->Stack(absl::StrCat(experts, "down_proj"), config.n_experts,
                                  config.d_model, config.d_ff);
  if (!binder->status().ok()) return;
  for (int expert = 0; expert < config.n_experts; ++expert) {
    ExpertWeightsView weights;
    weights.w1 = gate_up[expert].Rows(0, config.d_ff);
    weights.w3 = gate_up[expert].Rows(config.d_ff, config.d_ff);
    weights.w2 = down[expert];
    mlps->push_back(weights);
  }
}

}  // namespace

AttentionLayerWeights BindAttention(const ModelConfig& config, int layer, WeightBinder* binder) {
  const std::string prefix = LayerPrefix(layer);
  const std::string attention = absl::StrCat(prefix, "self_attn.");
  AttentionLayerWeights weights;
  weights.norm = binder->Vector(absl::StrCat(prefix, "input_layernorm.weight"), config.d_model);
  const auto projection = [&](const char* name, int64_t out, int64_t in, MatrixView* matrix,
                              TensorView* bias) {
    *matrix = binder->Matrix(absl::StrCat(attention, name, ".weight"), out, in);
    if (config.attention_bias) {
      *bias = binder->Vector(absl::StrCat(attention, name, ".bias"), out);
    }
  };
  projection("q_proj", config.q_width(), config.d_model, &weights.q, &weights.q_bias);
  projection("k_proj", config.kv_width(), config.d_model, &weights.k, &weights.k_bias);
  projection("v_proj", config.kv_width(), config.d_model, &weights.v, &weights.v_bias);
  projection("o_proj", config.d_model, config.q_width(), &weights.o, &weights.o_bias);
  return weights;
}

RouterLayerWeights BindRouter(const ModelConfig& config, int layer, WeightBinder* binder) {
  RouterLayerWeights weights;
  weights.norm = binder->Vector(absl::StrCat(LayerPrefix(layer), "post_attention_layernorm.weight"),
                                config.d_model);
  if (config.sparse()) {
    weights.gate = binder->Matrix(absl::StrCat(SparsePrefix(layer, *binder), "gate.weight"),
                                  config.n_experts, config.d_model);
  }
  return weights;
}

void BindMlps(const ModelConfig& config, int layer, WeightBinder* binder,
              std::vector<ExpertWeightsView>* mlps) {
  if (!config.sparse()) {
    mlps->push_back(BindDenseMlp(config, layer, binder));
    return;
  }
  const std::string experts = absl::StrCat(SparsePrefix(layer, *binder), "experts.");
  if (binder->Has(absl::StrCat(experts, "gate_up_proj"))) {
    BindFusedExperts(config, experts, binder, mlps);
    return;
  }
  for (int expert = 0; expert < config.n_experts && binder->status().ok(); ++expert) {
    mlps->push_back(BindNamedExpert(config, experts, expert, binder));
  }
}

}  // namespace gatefold

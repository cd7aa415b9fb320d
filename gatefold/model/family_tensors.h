#pragma once

#include <vector>

#include "gatefold/model/model_config.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/model/weight_binder.h"

namespace gatefold {

// The tensors of one layer by the names that the Llama-shaped families give them. Errors stay in
// the binder. Part of ModelWeights.
AttentionLayerWeights BindAttention(const ModelConfig& config, int layer, WeightBinder* binder);
RouterLayerWeights BindRouter(const ModelConfig& config, int layer, WeightBinder* binder);

// Appends one entry per expert, or one for a dense layer. Stops at the first error, so that memory
// is bounded by what the checkpoint has, not by what the config claims.
void BindMlps(const ModelConfig& config, int layer, WeightBinder* binder,
              std::vector<ExpertWeightsView>* mlps);

}  // namespace gatefold

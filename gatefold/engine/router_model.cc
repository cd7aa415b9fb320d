#include "gatefold/engine/router_model.h"

#include "gatefold/kernels/to_floats.h"

namespace gatefold {

std::unique_ptr<RouterModel> RouterModel::Load(const ModelWeights& weights) {
  auto model = std::make_unique<RouterModel>();
  model->config_ = weights.config();
  for (int layer = 0; layer < weights.config().n_layers; ++layer) {
    const RouterLayerWeights& views = weights.Router(layer);
    Layer& loaded = model->layers_.emplace_back();
    loaded.norm = ToFloats(views.norm);
    if (views.gate.data != nullptr) loaded.gate = PackedMatrix(views.gate, nullptr);
  }
  return model;
}

}  // namespace gatefold

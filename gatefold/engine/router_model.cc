#include "gatefold/engine/router_model.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/kernels/to_floats.h"

namespace gatefold {

namespace {

absl::Status CheckFinite(const Buffer& values, absl::string_view what, int layer) {
  const float* begin = values.as<float>();
  const float* end = begin + values.size_bytes() / sizeof(float);
  if (std::all_of(begin, end, [](float value) { return std::isfinite(value); }))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the ", what, " of layer ", layer, " holds NaN or infinity"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<RouterModel>> RouterModel::Load(const ModelWeights& weights) {
  auto model = std::make_unique<RouterModel>();
  model->config_ = weights.config();
  for (int layer = 0; layer < weights.config().n_layers; ++layer) {
    const RouterLayerWeights& views = weights.Router(layer);
    Layer& loaded = model->layers_.emplace_back();
    loaded.norm = ToFloats(views.norm);
    GF_RETURN_IF_ERROR(CheckFinite(loaded.norm, "norm before the experts", layer));
    if (views.gate.data == nullptr) continue;
    const TensorView gate = {
        views.gate.dtype, {views.gate.n_rows, views.gate.n_cols}, views.gate.data};
    GF_RETURN_IF_ERROR(CheckFinite(ToFloats(gate), "gate", layer));
    loaded.gate = PackedMatrix(views.gate, nullptr);
  }
  return model;
}

}  // namespace gatefold

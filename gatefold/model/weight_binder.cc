#include "gatefold/model/weight_binder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

bool IsKnownBuffer(const std::string& name) {
  return absl::EndsWith(name, ".rotary_emb.inv_freq") || absl::EndsWith(name, ".attn.bias") ||
         absl::EndsWith(name, ".attn.masked_bias");
}

}  // namespace

TensorView WeightBinder::Tensor(const std::string& name, std::vector<int64_t> shape) {
  if (!status_.ok()) return {};
  if (!Has(name)) {
    Refuse(absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing")));
    return {};
  }
  auto view = checkpoint_.Find(name);
  Refuse(view.status());
  if (!view.ok()) return {};
  if (view->shape != shape) {
    Refuse(absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape ",
                                                   ShapeText(view->shape), ", the config wants ",
                                                   ShapeText(shape))));
    return {};
  }
  used_.insert(name);
  return *std::move(view);
}

TensorView WeightBinder::Vector(const std::string& name, int64_t n) { return Tensor(name, {n}); }

MatrixView WeightBinder::Matrix(const std::string& name, int64_t n_rows, int64_t n_cols) {
  const TensorView view = Tensor(name, {n_rows, n_cols});
  return MatrixView{view.dtype, n_rows, n_cols, n_cols, view.data};
}

std::vector<MatrixView> WeightBinder::Stack(const std::string& name, int64_t n, int64_t n_rows,
                                            int64_t n_cols) {
  const TensorView view = Tensor(name, {n, n_rows, n_cols});
  std::vector<MatrixView> matrices;
  if (view.data == nullptr) return matrices;
  const MatrixView all{view.dtype, n * n_rows, n_cols, n_cols, view.data};
  for (int64_t i = 0; i < n; ++i) matrices.push_back(all.Rows(i * n_rows, n_rows));
  return matrices;
}

absl::Status WeightBinder::CheckNothingLeftOver() const {
  for (const std::string& name : checkpoint_.names()) {
    if (used_.count(name) > 0 || ignored_.count(name) > 0 || IsKnownBuffer(name)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", PrintableName(name), " belongs to nothing this model computes"));
  }
  return absl::OkStatus();
}

std::vector<std::string> WeightBinder::TakeUsedNames() {
  std::vector<std::string> names(used_.begin(), used_.end());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace gatefold

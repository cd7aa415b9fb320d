#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/checkpoint/checkpoint.h"
#include "gatefold/tensor/tensor_view.h"

namespace gatefold {

// Looks tensors up by name, checks type and shape, and remembers which were asked for, so that at
// the end nothing in the checkpoint is left over. The first error sticks; from then on empty views
// are returned. Part of ModelWeights.
class WeightBinder {
 public:
  explicit WeightBinder(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  const absl::Status& status() const { return status_; }
  void Refuse(const absl::Status& status) { status_.Update(status); }

  bool Has(const std::string& name) const { return checkpoint_.Contains(name); }
  TensorView Vector(const std::string& name, int64_t n);
  MatrixView Matrix(const std::string& name, int64_t n_rows, int64_t n_cols);
  // [n, n_rows, n_cols] as n matrices.
  std::vector<MatrixView> Stack(const std::string& name, int64_t n, int64_t n_rows, int64_t n_cols);

  // Leaves a tensor unused on purpose.
  void Ignore(const std::string& name) { ignored_.insert(name); }

  // InvalidArgument naming a tensor that was neither asked for nor ignored, nor is a buffer that
  // some versions of the training code saved along.
  absl::Status CheckNothingLeftOver() const;

  std::vector<std::string> TakeUsedNames();

 private:
  TensorView Tensor(const std::string& name, std::vector<int64_t> shape);

  const Checkpoint& checkpoint_;
  absl::Status status_;
  std::unordered_set<std::string> used_;
  std::unordered_set<std::string> ignored_;
};

}  // namespace gatefold

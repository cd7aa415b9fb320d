#include "gatefold/model/expert_layout.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

MatrixView AsMatrix(const TensorView& vector) {
  if (vector.data == nullptr) return {};
  const int64_t n = vector.n_elements();
  return {vector.dtype, 1, n, n, vector.data};
}

// By part. A part that the expert does not have has no data.
std::vector<MatrixView> Parts(const ExpertWeightsView& view) {
  return {view.w1, view.w3, view.w2, AsMatrix(view.b1), AsMatrix(view.b3), AsMatrix(view.b2)};
}

}  // namespace

absl::string_view ExpertPartName(ExpertPart part) {
  static constexpr absl::string_view kNames[] = {"w1", "w3", "w2", "b1", "b3", "b2"};
  return kNames[static_cast<int>(part)];
}

void ExpertLayout::Add(ExpertPart part, DType dtype, int64_t n_rows, int64_t n_cols) {
  parts_.push_back({part, dtype, n_rows, n_cols, size_bytes_});
  size_bytes_ += parts_.back().size_bytes();
}

ExpertLayout::ExpertLayout(const Sizes& sizes) {
  Add(ExpertPart::kW1, sizes.dtype, sizes.d_ff, sizes.d_model);
  Add(ExpertPart::kW3, sizes.dtype, sizes.d_ff, sizes.d_model);
  Add(ExpertPart::kW2, sizes.dtype, sizes.d_model, sizes.d_ff);
  if (sizes.has_b13) {
    Add(ExpertPart::kB1, sizes.bias_dtype, 1, sizes.d_ff);
    Add(ExpertPart::kB3, sizes.bias_dtype, 1, sizes.d_ff);
  }
  if (sizes.has_b2) Add(ExpertPart::kB2, sizes.bias_dtype, 1, sizes.d_model);
}

ExpertLayout::Sizes ExpertLayout::sizes() const {
  Sizes sizes;
  for (const Part& part : parts_) {
    switch (part.part) {
      case ExpertPart::kW1:
        sizes.dtype = part.dtype;
        sizes.d_ff = part.n_rows;
        sizes.d_model = part.n_cols;
        break;
      case ExpertPart::kW3:
      case ExpertPart::kW2:
        break;
      case ExpertPart::kB1:
      case ExpertPart::kB3:
        sizes.has_b13 = true;
        sizes.bias_dtype = part.dtype;
        break;
      case ExpertPart::kB2:
        sizes.has_b2 = true;
        sizes.bias_dtype = part.dtype;
        break;
    }
  }
  return sizes;
}

ExpertLayout ExpertLayout::Of(const ExpertWeightsView& view) {
  ExpertLayout layout;
  const std::vector<MatrixView> parts = Parts(view);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].data == nullptr) continue;
    layout.Add(static_cast<ExpertPart>(i), parts[i].dtype, parts[i].n_rows, parts[i].n_cols);
  }
  return layout;
}

ExpertWeightsView ExpertLayout::View(const char* image) const {
  ExpertWeightsView view;
  for (const Part& part : parts_) {
    const char* data = image + part.offset;
    const MatrixView matrix = {part.dtype, part.n_rows, part.n_cols, part.n_cols, data};
    const TensorView vector = {part.dtype, {part.n_cols}, data};
    switch (part.part) {
      case ExpertPart::kW1:
        view.w1 = matrix;
        break;
      case ExpertPart::kW3:
        view.w3 = matrix;
        break;
      case ExpertPart::kW2:
        view.w2 = matrix;
        break;
      case ExpertPart::kB1:
        view.b1 = vector;
        break;
      case ExpertPart::kB3:
        view.b3 = vector;
        break;
      case ExpertPart::kB2:
        view.b2 = vector;
        break;
    }
  }
  return view;
}

void ExpertLayout::Read(const ExpertRowReader& row, uint64_t begin, size_t n, char* to) const {
  GF_CHECK(begin + n <= size_bytes_);
  const uint64_t end = begin + n;
  std::vector<char> whole;  // of a row of which only a part is wanted
  for (const Part& part : parts_) {
    const uint64_t row_bytes = part.row_bytes();
    uint64_t at = std::max(begin, part.offset);
    while (at < std::min(end, part.offset + part.size_bytes())) {
      const auto index = static_cast<int64_t>((at - part.offset) / row_bytes);
      const uint64_t skipped = (at - part.offset) % row_bytes;
      const uint64_t wanted = std::min(row_bytes - skipped, end - at);
      if (wanted == row_bytes) {
        row(part.part, part.dtype, index, to);
      } else {
        whole.resize(row_bytes);
        row(part.part, part.dtype, index, whole.data());
        std::memcpy(to, whole.data() + skipped, wanted);
      }
      to += wanted;
      at += wanted;
    }
  }
}

ExpertRowReader RowsOf(const ExpertWeightsView& view) {
  return [parts = Parts(view)](ExpertPart part, DType dtype, int64_t row, void* to) {
    const MatrixView from = parts[static_cast<size_t>(part)].Rows(row, 1);
    GF_CHECK(from.dtype == dtype);
    std::memcpy(to, from.data, from.n_cols * DTypeBytes(dtype));
  };
}

ExpertDigest::ExpertDigest(const ExpertLayout& layout) {
  hash_.AddString("gatefold expert 1");
  hash_.AddNumber(layout.parts().size());
  for (const ExpertLayout::Part& part : layout.parts()) {
    hash_.AddString(ExpertPartName(part.part));
    hash_.AddString(DTypeName(part.dtype));
    hash_.AddNumber(static_cast<uint64_t>(part.n_rows));
    hash_.AddNumber(static_cast<uint64_t>(part.n_cols));
  }
}

std::string ExpertDigest::Of(const ExpertLayout& layout, const ExpertRowReader& row) {
  ExpertDigest digest(layout);
  std::vector<char> piece(std::min<uint64_t>(layout.size_bytes(), uint64_t{1} << 20));
  for (uint64_t at = 0; at < layout.size_bytes(); at += piece.size()) {
    const size_t n = std::min<uint64_t>(piece.size(), layout.size_bytes() - at);
    layout.Read(row, at, n, piece.data());
    digest.Add(piece.data(), n);
  }
  return digest.FinishHex();
}

}  // namespace gatefold

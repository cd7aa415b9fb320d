#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gatefold/checkpoint/sha256.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {

// The parts of an expert, in the order in which they lie in its image.
enum class ExpertPart { kW1, kW3, kW2, kB1, kB3, kB2 };
absl::string_view ExpertPartName(ExpertPart part);  // "w1"

// Writes one row of one part, as the checkpoint has it.
using ExpertRowReader = std::function<void(ExpertPart part, DType dtype, int64_t row, void* to)>;

// How one expert's weights lie in its *image*: part after part, row-major, little-endian, without
// gaps. The image of an expert is the same whoever makes it, and its digest stands for it.
class ExpertLayout {
 public:
  struct Part {
    ExpertPart part = ExpertPart::kW1;
    DType dtype = DType::kF32;
    int64_t n_rows = 0;  // of a vector: 1
    int64_t n_cols = 0;
    uint64_t offset = 0;
    uint64_t row_bytes() const { return n_cols * DTypeBytes(dtype); }
    uint64_t size_bytes() const { return n_rows * row_bytes(); }
    friend bool operator==(const Part&, const Part&) = default;
  };
  // The matrices' type and, where the expert has biases, theirs.
  struct Sizes {
    int64_t d_model = 0;
    int64_t d_ff = 0;
    DType dtype = DType::kF32;
    bool has_b13 = false;
    bool has_b2 = false;
    DType bias_dtype = DType::kF32;
    int64_t n_biases() const { return 2 * has_b13 * d_ff + has_b2 * d_model; }
  };

  ExpertLayout() = default;
  explicit ExpertLayout(const Sizes& sizes);
  static ExpertLayout Of(const ExpertWeightsView& view);

  const std::vector<Part>& parts() const { return parts_; }
  uint64_t size_bytes() const { return size_bytes_; }
  Sizes sizes() const;

  // Of an image of size_bytes().
  ExpertWeightsView View(const char* image) const;

  // Bytes [begin, begin + n) of the image, put together from rows.
  void Read(const ExpertRowReader& row, uint64_t begin, size_t n, char* to) const;

  friend bool operator==(const ExpertLayout&, const ExpertLayout&) = default;

 private:
  void Add(ExpertPart part, DType dtype, int64_t n_rows, int64_t n_cols);

  std::vector<Part> parts_;
  uint64_t size_bytes_ = 0;
};

// Rows of an expert that lies in a checkpoint. The view's data outlives it.
ExpertRowReader RowsOf(const ExpertWeightsView& view);

// SHA-256 over an expert: names, types and shapes of its parts, then its image. The image goes in
// piece by piece, in order.
class ExpertDigest {
 public:
  explicit ExpertDigest(const ExpertLayout& layout);
  void Add(const void* image, size_t bytes) { hash_.AddBytes(image, bytes); }
  std::string FinishHex() { return hash_.FinishHex(); }  // 64 digits; once

  // Of a whole expert.
  static std::string Of(const ExpertLayout& layout, const ExpertRowReader& row);

 private:
  Sha256 hash_;
};

}  // namespace gatefold

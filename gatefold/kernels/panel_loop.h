#pragma once

// How a matrix product is cut into pieces: blocks of rows that fit the second-level cache, and runs
// of panels. Shared by MatMul and the expert MLP; pieces never show in the numbers.

#include <algorithm>
#include <cstdint>

#include "gatefold/kernels/isa.h"
#include "gatefold/kernels/packed_matrix.h"

namespace gatefold::kernels {

// Rows of one piece: as many as a quarter of a 1 MiB cache holds, in whole tiles.
inline int64_t RowsPerBlock(int64_t n_lines) {
  const int64_t row_bytes = n_lines * PackedMatrix::kLine * sizeof(float);
  const int64_t tile = Kernels().best_rows;
  return std::max<int64_t>(tile, (int64_t{384} << 10) / row_bytes / tile * tile);
}

// Panels of one piece: about 128 KiB of weights.
inline int64_t PanelsPerRun(const PackedMatrix& w) {
  return std::clamp<int64_t>((int64_t{128} << 10) / w.PanelBytes(), 1, 64);
}

inline KernelTable::PanelDot PanelDotFor(DType dtype) {
  switch (dtype) {
    case DType::kF32: return Kernels().panel_dot_f32;
    case DType::kBF16: return Kernels().panel_dot_bf16;
    case DType::kF16: return Kernels().panel_dot_f16;
  }
  return nullptr;
}

constexpr int kMaxTileRows = 8;  // at least any KernelTable::best_rows

// Dot products of rows [row_begin, row_end) with panels [panel_begin, panel_end). A tile of rows
// stays in the first-level cache while the panels pass by.
// x_row(r): the split row r. store(r, panel, values): takes 4 results.
template <typename XRow, typename StoreFour>
void RunPanels(const PackedMatrix& w, int64_t row_begin, int64_t row_end, int64_t panel_begin,
               int64_t panel_end, XRow x_row, StoreFour store) {
  const KernelTable::PanelDot dot = PanelDotFor(w.dtype());
  const int tile = Kernels().best_rows;
  float results[kMaxTileRows][PackedMatrix::kPanel];
  float* y[kMaxTileRows];
  for (int m = 0; m < kMaxTileRows; ++m) y[m] = results[m];
  for (int64_t r = row_begin; r < row_end; r += tile) {
    const int n = static_cast<int>(std::min<int64_t>(tile, row_end - r));
    const float* x[kMaxTileRows];
    for (int m = 0; m < n; ++m) x[m] = x_row(r + m);
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      dot(w.Panel(panel), w.n_lines(), x, n, y);
      for (int m = 0; m < n; ++m) store(r + m, panel, results[m]);
    }
  }
}

}  // namespace gatefold::kernels

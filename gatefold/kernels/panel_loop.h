#pragma once

// How a matrix product is cut into pieces: blocks of rows that fit the second-level cache, and runs
// of panels. Shared by MatMul and the expert MLP; pieces never show in the numbers.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "gatefold/kernels/isa.h"
#include "gatefold/kernels/packed_matrix.h"

namespace gatefold::kernels {

constexpr int kMaxTileRows = 24;  // at least what TileRows() gives

// As many rows as fit a third of a 1 MiB cache.
inline int64_t RowsInCache(const PackedMatrix& w) {
  return (int64_t{384} << 10) / (w.n_lines() * PackedMatrix::kLine * sizeof(float));
}

// Rows of one call of a PanelDot.
inline int64_t TileRows(const PackedMatrix& w) {
  const int64_t tile = Kernels().best_rows;
  if (w.kind() == WeightKind::kCheckpoint) return tile;
  return std::max(tile,
                  std::min<int64_t>(RowsInCache(w), Kernels().best_rows_quantised) / tile * tile);
}

// Rows of one piece: as many as fit the cache, in whole tiles.
inline int64_t RowsPerBlock(const PackedMatrix& w) {
  const int64_t tile = TileRows(w);
  return std::max(tile, RowsInCache(w) / tile * tile);
}

// Panels of one piece: about 128 KiB of weights.
inline int64_t PanelsPerRun(const PackedMatrix& w) {
  return std::clamp<int64_t>((int64_t{128} << 10) / w.PanelBytes(), 1, 64);
}

inline KernelTable::PanelDot PanelDotFor(const PackedMatrix& w) {
  if (w.kind() == WeightKind::kInt8) return Kernels().panel_dot_int8;
  if (w.kind() == WeightKind::kInt4) return Kernels().panel_dot_int4;
  switch (w.dtype()) {
    case DType::kF32:
      return Kernels().panel_dot_f32;
    case DType::kBF16:
      return Kernels().panel_dot_bf16;
    case DType::kF16:
      return Kernels().panel_dot_f16;
  }
  return nullptr;
}

// Dot products of rows [row_begin, row_end) with panels [panel_begin, panel_end), + bias if there
// is one. A tile of rows stays in the first-level cache while the panels pass by.
// x_row(r): row r in even/odd order. y_row(r): where its n_out results go.
template <typename XRow, typename YRow>
void RunPanels(const PackedMatrix& w, const float* bias, int64_t row_begin, int64_t row_end,
               int64_t panel_begin, int64_t panel_end, XRow x_row, YRow y_row) {
  constexpr int kPanel = PackedMatrix::kPanel;
  const KernelTable::PanelDot dot = PanelDotFor(w);
  const int64_t tile = TileRows(w);
  for (int64_t r = row_begin; r < row_end; r += tile) {
    const int n = static_cast<int>(std::min<int64_t>(tile, row_end - r));
    const float* x[kMaxTileRows];
    float* rows[kMaxTileRows];
    for (int m = 0; m < n; ++m) {
      x[m] = x_row(r + m);
      rows[m] = y_row(r + m);
    }
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
      const int64_t first = panel * kPanel;
      const int64_t count = std::min<int64_t>(kPanel, w.n_out() - first);
      float four[kMaxTileRows][kPanel];
      float* y[kMaxTileRows];
      for (int m = 0; m < n; ++m) y[m] = count == kPanel ? rows[m] + first : four[m];
      dot(w.Panel(panel), w.n_lines(), x, n, y, r == row_begin);
      for (int m = 0; m < n && count < kPanel; ++m) {
        std::memcpy(rows[m] + first, four[m], count * sizeof(float));
      }
      for (int m = 0; m < n && bias != nullptr; ++m) {
        for (int64_t i = first; i < first + count; ++i) rows[m][i] += bias[i];
      }
    }
  }
}

}  // namespace gatefold::kernels

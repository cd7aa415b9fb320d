#include "gatefold/kernels/expert_mlp.h"

#include <algorithm>

#include "gatefold/base/check.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/kernels/panel_loop.h"
#include "gatefold/kernels/split_rows.h"
#include "gatefold/kernels/to_floats.h"

namespace gatefold {

ExpertWeights::ExpertWeights(const Views& views, ThreadPool* threads)
    : w1_(views.w1, threads),
      w3_(views.w3, threads),
      w2_(views.w2, threads),
      b1_(ToFloats(views.b1)),
      b3_(ToFloats(views.b3)),
      b2_(ToFloats(views.b2)) {
  GF_CHECK(w1_.n_out() == w3_.n_out() && w1_.n_in() == w3_.n_in() && w2_.n_in() == w1_.n_out() &&
           w2_.n_out() == w1_.n_in());
}

size_t ExpertWeights::size_bytes() const {
  return w1_.size_bytes() + w3_.size_bytes() + w2_.size_bytes() + b1_.size_bytes() +
         b3_.size_bytes() + b2_.size_bytes();
}

namespace kernels {
namespace {

// A piece of one loop: some rows of one group and some panels of its matrix.
struct Piece {
  const ExpertGroup* group;
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;
};

template <typename Matrix>
void CutIntoPieces(absl::Span<const ExpertGroup> groups, Matrix matrix, std::vector<Piece>* pieces) {
  pieces->clear();
  for (const ExpertGroup& group : groups) {
    const PackedMatrix& w = matrix(*group.expert);
    const int64_t n_rows = static_cast<int64_t>(group.rows.size());
    const int64_t rows_per_block = RowsPerBlock(w.n_lines());
    const int64_t panels_per_run = PanelsPerRun(w);
    for (int64_t row = 0; row < n_rows; row += rows_per_block) {
      for (int64_t panel = 0; panel < w.n_panels(); panel += panels_per_run) {
        pieces->push_back({&group, row, std::min(row + rows_per_block, n_rows), panel,
                           std::min(panel + panels_per_run, w.n_panels())});
      }
    }
  }
}

// silu(w1 x + b1) * (w3 x + b3) for the piece's rows and outputs, into `hidden` in plain order.
void HiddenPiece(const Piece& piece, const SplitRows& x, SplitRows* hidden) {
  const ExpertWeights& expert = *piece.group->expert;
  const KernelTable::PanelDot dot = PanelDotFor(expert.w1().dtype());
  const int tile = Kernels().best_rows;
  constexpr int kPanel = PackedMatrix::kPanel;
  float gates[kMaxTileRows][kPanel], ups[kMaxTileRows][kPanel];
  float *gate_rows[kMaxTileRows], *up_rows[kMaxTileRows];
  for (int m = 0; m < kMaxTileRows; ++m) {
    gate_rows[m] = gates[m];
    up_rows[m] = ups[m];
  }
  const float* b1 = expert.b1();
  const float* b3 = expert.b3();
  for (int64_t r = piece.row_begin; r < piece.row_end; r += tile) {
    const int n = static_cast<int>(std::min<int64_t>(tile, piece.row_end - r));
    const float* rows[kMaxTileRows];
    for (int m = 0; m < n; ++m) rows[m] = x.row(piece.group->rows[r + m]);
    for (int64_t panel = piece.panel_begin; panel < piece.panel_end; ++panel) {
      dot(expert.w1().Panel(panel), expert.w1().n_lines(), rows, n, gate_rows);
      dot(expert.w3().Panel(panel), expert.w3().n_lines(), rows, n, up_rows);
      const int64_t first = panel * kPanel;
      const int64_t count = std::min<int64_t>(kPanel, expert.d_ff() - first);
      for (int m = 0; m < n; ++m) {
        for (int64_t i = 0; i < count && b1 != nullptr; ++i) gates[m][i] += b1[first + i];
        for (int64_t i = 0; i < count && b3 != nullptr; ++i) ups[m][i] += b3[first + i];
        float* to = hidden->row(piece.group->slots[r + m]) + first;
        for (int64_t i = 0; i < count; ++i) to[i] = gates[m][i];
        // The activation of a whole run is computed at once, below; ups wait behind the row.
        float* up = to + hidden->n_lines() * PackedMatrix::kLine / 2;
        for (int64_t i = 0; i < count; ++i) up[i] = ups[m][i];
      }
    }
  }
}

}  // namespace

void ExpertMlp(absl::Span<const ExpertGroup> groups, const float* x, int64_t n_rows, float* y,
               ThreadPool* threads) {
  int64_t n_slots = 0, max_f = 0, d_model = 0;
  for (const ExpertGroup& group : groups) {
    if (group.rows.empty()) continue;
    for (int32_t slot : group.slots) n_slots = std::max<int64_t>(n_slots, slot + 1);
    max_f = std::max(max_f, group.expert->d_ff());
    d_model = group.expert->d_model();
  }
  if (n_slots == 0) return;
  thread_local SplitRows input_rows, raw_rows, hidden_rows;
  thread_local std::vector<Piece> pieces;
  input_rows.Assign(x, n_rows, d_model, threads);
  // Twice a padded row: gate sums in the first half, up sums in the second.
  const int64_t padded_f = (max_f + 31) / 32 * 32;
  raw_rows.Reserve(n_slots, 2 * padded_f);
  hidden_rows.Reserve(n_slots, padded_f);
  SplitRows& input = input_rows;
  SplitRows& raw = raw_rows;
  SplitRows& hidden = hidden_rows;
  std::vector<Piece>& cut = pieces;

  CutIntoPieces(groups, [](const ExpertWeights& e) -> const PackedMatrix& { return e.w1(); }, &cut);
  ParallelFor(threads, static_cast<int64_t>(cut.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) HiddenPiece(cut[i], input, &raw);
  });
  // (row of a group) by row: activation, then the order in which w2 reads it.
  for (const ExpertGroup& group : groups) {
    const int64_t f = group.rows.empty() ? 0 : group.expert->d_ff();
    const int64_t n = static_cast<int64_t>(group.slots.size());
    ParallelFor(n >= 16 ? threads : nullptr, n, 4, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        float* gate = raw.row(group.slots[i]);
        Kernels().silu_mul(gate, gate + raw.n_lines() * PackedMatrix::kLine / 2, gate, f);
        Kernels().split_even_odd(gate, f, hidden.row(group.slots[i]));
      }
    });
  }
  CutIntoPieces(groups, [](const ExpertWeights& e) -> const PackedMatrix& { return e.w2(); }, &cut);
  ParallelFor(threads, static_cast<int64_t>(cut.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ExpertGroup& group = *cut[i].group;
      const float* b2 = group.expert->b2();
      const auto store = [&](int64_t row, int64_t panel, const float* four) {
        const int64_t first = panel * PackedMatrix::kPanel;
        const int64_t n = std::min<int64_t>(PackedMatrix::kPanel, d_model - first);
        float* to = y + group.slots[row] * d_model + first;
        for (int64_t o = 0; o < n; ++o) to[o] = b2 == nullptr ? four[o] : four[o] + b2[first + o];
      };
      RunPanels(group.expert->w2(), cut[i].row_begin, cut[i].row_end, cut[i].panel_begin,
                cut[i].panel_end, [&](int64_t r) { return hidden.row(group.slots[r]); }, store);
    }
  });
}

}  // namespace kernels
}  // namespace gatefold

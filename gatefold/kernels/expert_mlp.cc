#include "gatefold/kernels/expert_mlp.h"

#include <algorithm>

#include "gatefold/base/check.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/kernels/panel_loop.h"
#include "gatefold/kernels/split_rows.h"
#include "gatefold/kernels/to_floats.h"

namespace gatefold {

ExpertWeights::ExpertWeights(const Views& views, ThreadPool* threads, WeightKind kind)
    : w2_(views.w2, threads, kind),
      b1_(ToFloats(views.b1)),
      b3_(ToFloats(views.b3)),
      b2_(ToFloats(views.b2)) {
  const int64_t f = views.w1.n_rows, d = views.w1.n_cols;
  GF_CHECK(views.w3.n_rows == f && views.w3.n_cols == d && w2_.n_in() == f && w2_.n_out() == d);
  w13_ = PackedMatrix(views.w1.dtype, W13Outputs(f), d, kind);
  w13_.FillEveryOtherPanel(0, views.w1, threads);
  w13_.FillEveryOtherPanel(1, views.w3, threads);
}

size_t ExpertWeights::size_bytes() const {
  return w13_.size_bytes() + w2_.size_bytes() + b1_.size_bytes() + b3_.size_bytes() +
         b2_.size_bytes();
}

size_t ExpertWeights::SizeBytes(DType dtype, int64_t d_model, int64_t d_ff, int64_t n_biases,
                                WeightKind kind) {
  return PackedMatrix::SizeBytes(dtype, W13Outputs(d_ff), d_model, kind) +
         PackedMatrix::SizeBytes(dtype, d_model, d_ff, kind) + n_biases * sizeof(float);
}

namespace kernels {
namespace {

constexpr int kPanel = PackedMatrix::kPanel;
constexpr int kLine = PackedMatrix::kLine;
// Hidden outputs of one piece of the first loop, in panels: whole lines, so that a piece leaves
// them in the order in which w2 reads them.
constexpr int kPanelsPerLine = kLine / kPanel;
constexpr int kMaxHiddenPanels = 64;

// A piece of one loop: some rows of one group, and some panels.
struct Piece {
  const ExpertGroup* group;
  int64_t row_begin, row_end;
  int64_t panel_begin, panel_end;
};

// Cuts [0, n_panels) into runs and each group's rows into blocks. Runs come before blocks: then
// threads that work on neighbouring pieces read one stream of weights.
void AddPieces(const ExpertGroup& group, const PackedMatrix& w, int64_t n_panels,
               int64_t panels_per_run, std::vector<Piece>* pieces) {
  const int64_t n_rows = static_cast<int64_t>(group.rows.size());
  const int64_t rows_per_block = RowsPerBlock(w);
  for (int64_t row = 0; row < n_rows; row += rows_per_block) {
    for (int64_t panel = 0; panel < n_panels; panel += panels_per_run) {
      pieces->push_back({&group, row, std::min(row + rows_per_block, n_rows), panel,
                         std::min(panel + panels_per_run, n_panels)});
    }
  }
}

void AddBias(const float* bias, int64_t n, float* x) {
  for (int64_t i = 0; i < n && bias != nullptr; ++i) x[i] += bias[i];
}

// silu(w1 x + b1) * (w3 x + b3) for the piece's rows and hidden panels.
void HiddenPiece(const Piece& piece, const SplitRows& x, SplitRows* hidden) {
  const ExpertWeights& expert = *piece.group->expert;
  const PackedMatrix& w = expert.w13();
  const KernelTable& kernels = Kernels();
  const KernelTable::PanelDot dot = PanelDotFor(w);
  const int64_t tile = TileRows(w);
  const int64_t first = piece.panel_begin * kPanel;
  const int64_t count = std::min(piece.panel_end * kPanel, expert.d_ff()) - first;
  float gates[kMaxTileRows][kMaxHiddenPanels * kPanel];
  float ups[kMaxTileRows][kMaxHiddenPanels * kPanel];
  for (int64_t r = piece.row_begin; r < piece.row_end; r += tile) {
    const int n = static_cast<int>(std::min<int64_t>(tile, piece.row_end - r));
    const float* rows[kMaxTileRows];
    for (int m = 0; m < n; ++m) rows[m] = x.row(piece.group->rows[r + m]);
    for (int64_t panel = piece.panel_begin; panel < piece.panel_end; ++panel) {
      float* gate[kMaxTileRows];
      float* up[kMaxTileRows];
      for (int m = 0; m < n; ++m) {
        gate[m] = gates[m] + (panel - piece.panel_begin) * kPanel;
        up[m] = ups[m] + (panel - piece.panel_begin) * kPanel;
      }
      const bool from_memory = r == piece.row_begin;
      dot(w.Panel(2 * panel), w.n_lines(), rows, n, gate, from_memory);
      dot(w.Panel(2 * panel + 1), w.n_lines(), rows, n, up, from_memory);
    }
    for (int m = 0; m < n; ++m) {
      AddBias(expert.b1() == nullptr ? nullptr : expert.b1() + first, count, gates[m]);
      AddBias(expert.b3() == nullptr ? nullptr : expert.b3() + first, count, ups[m]);
      kernels.silu_mul(gates[m], ups[m], gates[m], count);
      kernels.split_even_odd(gates[m], count, hidden->row(piece.group->slots[r + m]) + first);
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
  thread_local SplitRows input_rows, hidden_rows;
  thread_local std::vector<Piece> pieces;
  SplitRows& input = input_rows;  // this thread's; the workers must not look up their own
  SplitRows& hidden = hidden_rows;
  input.Assign(x, n_rows, d_model, threads);
  hidden.Reserve(n_slots, max_f);

  pieces.clear();
  for (const ExpertGroup& group : groups) {
    const PackedMatrix& w = group.expert->w13();
    const int64_t per_run = PanelsPerRun(w) / kPanelsPerLine * kPanelsPerLine;
    AddPieces(group, w, w.n_panels() / 2,
              std::clamp<int64_t>(per_run, kPanelsPerLine, kMaxHiddenPanels), &pieces);
  }
  const std::vector<Piece>& cut = pieces;
  ParallelFor(threads, static_cast<int64_t>(cut.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) HiddenPiece(cut[i], input, &hidden);
  });

  pieces.clear();
  for (const ExpertGroup& group : groups) {
    const PackedMatrix& w = group.expert->w2();
    AddPieces(group, w, w.n_panels(), PanelsPerRun(w), &pieces);
  }
  ParallelFor(threads, static_cast<int64_t>(cut.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const ExpertGroup& group = *cut[i].group;
      RunPanels(
          group.expert->w2(), group.expert->b2(), cut[i].row_begin, cut[i].row_end,
          cut[i].panel_begin, cut[i].panel_end,
          [&](int64_t r) { return hidden.row(group.slots[r]); },
          [&](int64_t r) { return y + group.slots[r] * d_model; });
    }
  });
}

}  // namespace kernels
}  // namespace gatefold

#include "gatefold/kernels/matmul.h"

#include <algorithm>

#include "gatefold/kernels/panel_loop.h"
#include "gatefold/kernels/split_rows.h"

namespace gatefold::kernels {

void MatMul(const PackedMatrix& w, const float* x, float* y, int64_t n_rows, ThreadPool* threads,
            const float* bias) {
  if (n_rows == 0) return;
  thread_local SplitRows rows;
  rows.Assign(x, n_rows, w.n_in(), threads);
  const SplitRows& split = rows;  // this thread's; the workers must not look up their own
  const int64_t n_out = w.n_out();
  const int64_t rows_per_block = RowsPerBlock(w);
  const int64_t panels_per_run = PanelsPerRun(w);
  const int64_t n_runs = (w.n_panels() + panels_per_run - 1) / panels_per_run;
  const int64_t n_blocks = (n_rows + rows_per_block - 1) / rows_per_block;
  ParallelFor(threads, n_blocks * n_runs, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / n_runs * rows_per_block;
      const int64_t panel = item % n_runs * panels_per_run;
      RunPanels(
          w, bias, row, std::min(row + rows_per_block, n_rows), panel,
          std::min(panel + panels_per_run, w.n_panels()), [&](int64_t r) { return split.row(r); },
          [&](int64_t r) { return y + r * n_out; });
    }
  });
}

}  // namespace gatefold::kernels

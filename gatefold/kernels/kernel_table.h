#pragma once

#include <cstdint>

namespace gatefold::kernels {

// What one instruction set provides. Raw pointers only: files compiled for an instruction set must
// not instantiate code that others share. All variants give the same bits.
struct KernelTable {
  const char* isa;

  // Dot products of n_rows rows with the 4 outputs of one panel of a PackedMatrix.
  // x: n_rows pointers to rows in even/odd order (see SplitEvenOdd), n_lines * 32 floats each.
  // y: n_rows pointers; row m's 4 results go to y[m][0..3].
  // from_memory: whether to prefetch what follows, because this is the first reading of the panels.
  using PanelDot = void (*)(const char* panel, int64_t n_lines, const float* const* x, int n_rows,
                            float* const* y, bool from_memory);
  PanelDot panel_dot_f32;
  PanelDot panel_dot_bf16;
  PanelDot panel_dot_f16;
  PanelDot panel_dot_int8;
  PanelDot panel_dot_int4;
  // The most rows of a call, and the best: as many as the registers hold; with quantised weights as
  // many as share what is done once for all rows.
  int best_rows;
  int best_rows_quantised;

  // Puts n floats into even/odd order per 32, padded with zeros to n_lines * 32.
  void (*split_even_odd)(const float* x, int64_t n, float* out);

  // h[i] = silu(gate[i]) * up[i]
  void (*silu_mul)(const float* gate, const float* up, float* h, int64_t n);

  // y = x / sqrt(mean(x^2) + eps) * weight
  void (*rms_norm)(const float* x, const float* weight, float eps, float* y, int64_t d);

  // x[i] += sum over k of weights[k] * answers[k * d + i], added in the order of k
  void (*fold)(const float* answers, const float* weights, int k, float* x, int64_t d);

  // exp of 16 floats, as all kernels compute it
  void (*exp16)(const float* x, float* y);

  // Of n floats; see rows.h. `halves` may lie anywhere.
  void (*to_bf16)(const float* x, int64_t n, uint16_t* to);
  void (*from_bf16)(const char* halves, int64_t n, float* to);
  void (*round_to_bf16)(float* x, int64_t n);

  struct AttentionTile {
    const float* const* q;  // n_queries pointers to [head_dim]
    float* const* out;      // n_queries pointers to [head_dim]
    const int* positions;   // of each query
    int n_queries;          // at most kMaxQueries
    int head_dim;
    int window;  // 0: off
    float scale;
    const float* keys;  // of one layer and KV head; block b starts b * block_stride in
    const float* values;
    int64_t block_stride;  // floats
    const int32_t* block_table;
    float* scratch;  // n_queries * (head_dim rounded up to 16) floats
  };
  static constexpr int kMaxQueries = 8;
  void (*attention_tile)(const AttentionTile& tile);
};

const KernelTable* ScalarKernels();
const KernelTable* Avx2Kernels();
const KernelTable* Avx512Kernels();

}  // namespace gatefold::kernels

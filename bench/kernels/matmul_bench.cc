#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bench/kernels/random_weights.h"
#include "bench/kernels/roofline.h"
#include "gatefold/kernels/matmul.h"
#include "gatefold/kernels/packed_matrix.h"

namespace gatefold::bench {
namespace {

constexpr int64_t kIn = 1024;
constexpr int64_t kOut = 2816;
constexpr int kMatrices =
    24;  // 138 MB in bfloat16, so that none is left in a cache when it returns

std::string Name(const char* what, DType dtype, int64_t n_rows) {
  return absl::StrCat(what, "/", std::string(DTypeName(dtype)), "/rows:", n_rows);
}

void MatMulBench(benchmark::State& state, const Bench& bench, DType dtype, int64_t n_rows) {
  const std::vector<char> weights = RandomWeights(dtype, kIn * kOut);
  std::vector<PackedMatrix> matrices;
  for (int i = 0; i < kMatrices; ++i) {
    matrices.emplace_back(MatrixView{dtype, kOut, kIn, kIn, weights.data()}, bench.threads);
  }
  const std::vector<float> x = RandomFloats(n_rows * kIn);
  std::vector<float> y(n_rows * kOut);
  int turn = 0;
  const Work work{.bytes = 1.0 * kIn * kOut * DTypeBytes(dtype),
                  .flops = 2.0 * kIn * kOut * n_rows};
  MeasureAgainstLimits(state, bench.limits, work, [&] {
    kernels::MatMul(matrices[turn++ % kMatrices], x.data(), y.data(), n_rows, bench.threads);
  });
}

// What loading a model costs beside reading it.
void PackBench(benchmark::State& state, const Bench& bench, DType dtype) {
  const std::vector<char> weights = RandomWeights(dtype, 16 * kIn * kOut);
  const MatrixView view{dtype, 16 * kOut, kIn, kIn, weights.data()};
  PackedMatrix packed(dtype, view.n_rows, view.n_cols);
  MeasureAgainstLimits(state, bench.limits, {.bytes = static_cast<double>(weights.size())},
                       [&] { packed.Fill(0, view, bench.threads); });
}

}  // namespace

void RegisterMatMul(const Bench& bench) {
  for (DType dtype : {DType::kBF16, DType::kF32, DType::kF16}) {
    for (int64_t n_rows : {1, 4, 16, 128, 512}) {
      benchmark::RegisterBenchmark(Name("matmul", dtype, n_rows).c_str(), MatMulBench, bench, dtype,
                                   n_rows)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  for (DType dtype : {DType::kBF16, DType::kF32, DType::kF16}) {
    benchmark::RegisterBenchmark(absl::StrCat("pack/", std::string(DTypeName(dtype))).c_str(),
                                 PackBench, bench, dtype)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace gatefold::bench

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

// How weights are kept, and what they are made of.
struct Format {
  DType dtype;
  WeightKind kind = WeightKind::kCheckpoint;
  std::string Name() const {
    return kind == WeightKind::kCheckpoint ? std::string(DTypeName(dtype)) : WeightKindName(kind);
  }
};
const Format kFormats[] = {{DType::kBF16},
                           {DType::kF32},
                           {DType::kF16},
                           {DType::kBF16, WeightKind::kInt8},
                           {DType::kBF16, WeightKind::kInt4}};

void MatMulBench(benchmark::State& state, const Bench& bench, Format format, int64_t n_rows) {
  const DType dtype = format.dtype;
  const std::vector<char> weights = RandomWeights(dtype, kIn * kOut);
  std::vector<PackedMatrix> matrices;
  for (int i = 0; i < kMatrices; ++i) {
    matrices.emplace_back(MatrixView{dtype, kOut, kIn, kIn, weights.data()}, bench.threads,
                          format.kind);
  }
  const std::vector<float> x = RandomFloats(n_rows * kIn);
  std::vector<float> y(n_rows * kOut);
  int turn = 0;
  const Work work{.bytes = static_cast<double>(matrices[0].size_bytes()),
                  .flops = 2.0 * kIn * kOut * n_rows};
  MeasureAgainstLimits(state, bench.limits, work, [&] {
    kernels::MatMul(matrices[turn++ % kMatrices], x.data(), y.data(), n_rows, bench.threads);
  });
}

// What loading a model costs beside reading it.
void PackBench(benchmark::State& state, const Bench& bench, Format format) {
  const DType dtype = format.dtype;
  const std::vector<char> weights = RandomWeights(dtype, 16 * kIn * kOut);
  const MatrixView view{dtype, 16 * kOut, kIn, kIn, weights.data()};
  PackedMatrix packed(dtype, view.n_rows, view.n_cols, format.kind);
  MeasureAgainstLimits(state, bench.limits, {.bytes = static_cast<double>(weights.size())},
                       [&] { packed.Fill(0, view, bench.threads); });
}

}  // namespace

void RegisterMatMul(const Bench& bench) {
  for (const Format& format : kFormats) {
    for (int64_t n_rows : {1, 2, 4, 8, 16, 128, 512}) {
      benchmark::RegisterBenchmark(absl::StrCat("matmul/", format.Name(), "/rows:", n_rows).c_str(),
                                   MatMulBench, bench, format, n_rows)
          ->UseManualTime()
          ->Unit(benchmark::kMicrosecond);
    }
  }
  for (const Format& format : kFormats) {
    benchmark::RegisterBenchmark(absl::StrCat("pack/", format.Name()).c_str(), PackBench, bench,
                                 format)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
}

}  // namespace gatefold::bench

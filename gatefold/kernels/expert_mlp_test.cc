#include "gatefold/kernels/expert_mlp.h"

#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "gatefold/kernels/kernels_fixture.h"

namespace gatefold::kernels {
namespace {

using ExpertMlpTest = KernelsTest;

TEST_P(ExpertMlpTest, ExpertMlpMatchesTheDefinitionWithAndWithoutBiases) {
  for (const bool biased : {false, true}) {
    const int64_t d = 36, f = 22, n_rows = 9;
    const Weights w1(DType::kBF16, f, d, 1), w3(DType::kBF16, f, d, 2), w2(DType::kBF16, d, f, 3);
    const std::vector<float> b1 = Random(f, 4), b3 = Random(f, 5), b2 = Random(d, 6);
    ExpertWeights::Views views{w1.View(), w3.View(), w2.View(), {}, {}, {}};
    if (biased) {
      views.b1 = {DType::kF32, {f}, b1.data()};
      views.b3 = {DType::kF32, {f}, b3.data()};
      views.b2 = {DType::kF32, {d}, b2.data()};
    }
    const ExpertWeights expert(views, nullptr);
    const std::vector<float> x = Random(n_rows * d, 7);
    std::vector<float> gate = Reference(w1, x, n_rows), up = Reference(w3, x, n_rows);
    for (int64_t i = 0; i < n_rows * f; ++i) {
      if (biased) {
        gate[i] += b1[i % f];
        up[i] += b3[i % f];
      }
      gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    }
    const std::vector<float> want = Reference(w2, gate, n_rows);
    const std::vector<int32_t> rows = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    const std::vector<int32_t> slots = {8, 7, 6, 5, 4, 3, 2, 1, 0};
    std::vector<float> y(n_rows * d);
    ExpertMlp({{&expert, rows, slots}}, x.data(), n_rows, y.data(), nullptr);
    for (int64_t r = 0; r < n_rows; ++r) {
      for (int64_t i = 0; i < d; ++i) {
        const float bias = biased ? b2[i] : 0;
        EXPECT_NEAR(y[(8 - r) * d + i], want[r * d + i] + bias, 1e-4);
      }
    }
  }
}

TEST_P(ExpertMlpTest, GroupsOfExpertsGiveTheBitsOfEachAlone) {
  const int64_t d = 64, n_rows = 33;
  std::vector<ExpertWeights> experts;
  for (uint32_t e = 0; e < 3; ++e) {
    const int64_t f = 40 + e;  // slices of a dense layer differ by one
    const Weights w1(DType::kF32, f, d, 10 + e), w3(DType::kF32, f, d, 20 + e),
        w2(DType::kF32, d, f, 30 + e);
    experts.emplace_back(ExpertWeights::Views{w1.View(), w3.View(), w2.View(), {}, {}, {}},
                         nullptr);
  }
  const std::vector<float> x = Random(n_rows * d, 40);
  std::vector<std::vector<int32_t>> rows(3), slots(3);
  for (int32_t r = 0; r < n_rows; ++r) {
    for (int32_t k = 0; k < 2; ++k) {
      rows[(r + k) % 3].push_back(r);
      slots[(r + k) % 3].push_back(2 * r + k);
    }
  }
  std::vector<float> alone(2 * n_rows * d), together(2 * n_rows * d);
  std::vector<ExpertGroup> groups;
  const std::vector<int32_t> zero = {0};
  for (int e = 0; e < 3; ++e) {
    groups.push_back({&experts[e], rows[e], slots[e]});
    for (size_t i = 0; i < rows[e].size(); ++i) {
      ExpertMlp({{&experts[e], zero, zero}}, &x[rows[e][i] * d], 1, &alone[slots[e][i] * d],
                nullptr);
    }
  }
  for (int n_threads : {1, 3}) {
    ThreadPool pool(n_threads, absl::ZeroDuration());
    ExpertMlp(groups, x.data(), n_rows, together.data(), &pool);
    EXPECT_EQ(together, alone) << n_threads;
  }
}

// The slices of a dense layer: rows of w1 and w3, columns of w2.
TEST_P(ExpertMlpTest, SlicesOfADenseLayerAddUpToIt) {
  const int64_t d = 40, f = 51, n_rows = 3;
  const Weights w1(DType::kBF16, f, d, 1), w3(DType::kBF16, f, d, 2), w2(DType::kBF16, d, f, 3);
  const std::vector<float> x = Random(n_rows * d, 4);
  const std::vector<int32_t> rows = {0, 1, 2};
  const auto run = [&](int64_t begin, int64_t count) {
    const ExpertWeights slice({w1.View().Rows(begin, count),
                               w3.View().Rows(begin, count),
                               w2.View().Columns(begin, count),
                               {},
                               {},
                               {}},
                              nullptr);
    std::vector<float> y(n_rows * d);
    ExpertMlp({{&slice, rows, rows}}, x.data(), n_rows, y.data(), nullptr);
    return y;
  };
  const std::vector<float> whole = run(0, f);
  std::vector<float> sum(whole.size());
  for (auto [begin, count] : {std::pair(0, 26), std::pair(26, 25)}) {
    const std::vector<float> part = run(begin, count);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  for (size_t i = 0; i < sum.size(); ++i)
    EXPECT_NEAR(sum[i], whole[i], 1e-5 * (1 + std::abs(whole[i]))) << i;
}

TEST_P(ExpertMlpTest, WritesOnlyTheSlotsOfItsGroups) {
  const int64_t d = 33, f = 10;
  const Weights w1(DType::kF32, f, d, 1), w3(DType::kF32, f, d, 2), w2(DType::kF32, d, f, 3);
  const ExpertWeights expert({w1.View(), w3.View(), w2.View(), {}, {}, {}}, nullptr);
  const std::vector<float> x = Random(2 * d, 4);
  const std::vector<int32_t> rows = {1}, slots = {2}, none;
  std::vector<float> y(4 * d, 7.0f);
  ExpertMlp({{&expert, none, none}, {&expert, rows, slots}}, x.data(), 2, y.data(), nullptr);
  for (int64_t i = 0; i < 4 * d; ++i) EXPECT_EQ(y[i] == 7.0f, i / d != 2) << i;
}

TEST_P(ExpertMlpTest, NanOfARowStaysInItsRow) {
  const int64_t d = 20, f = 12;
  const Weights w1(DType::kBF16, f, d, 1), w3(DType::kBF16, f, d, 2), w2(DType::kBF16, d, f, 3);
  const ExpertWeights expert({w1.View(), w3.View(), w2.View(), {}, {}, {}}, nullptr);
  std::vector<float> x = Random(3 * d, 4), y(3 * d);
  x[d] = NAN;
  const std::vector<int32_t> rows = {0, 1, 2};
  ExpertMlp({{&expert, rows, rows}}, x.data(), 3, y.data(), nullptr);
  for (int64_t i = 0; i < 3 * d; ++i) EXPECT_EQ(std::isnan(y[i]), i / d == 1) << i;
}

TEST_P(ExpertMlpTest, AQuantisedExpertGivesTheBitsOfTheFloatsItStandsFor) {
  const int64_t d = 70, f = 1090, n_rows = 29;
  const Weights w1(DType::kBF16, f, d, 1), w3(DType::kBF16, f, d, 2), w2(DType::kBF16, d, f, 3);
  const std::vector<float> b1 = Random(f, 5);
  const TensorView bias = {DType::kF32, {f}, b1.data()};
  const std::vector<float> x = Random(n_rows * d, 4);
  std::vector<int32_t> rows(n_rows);
  std::iota(rows.begin(), rows.end(), 0);
  const auto run = [&](const ExpertWeights& expert) {
    std::vector<float> y(n_rows * d);
    ExpertMlp({{&expert, rows, rows}}, x.data(), n_rows, y.data(), nullptr);
    return y;
  };
  for (WeightKind kind : kQuantisedKinds) {
    const Weights f1 = Dequantised(w1, kind), f3 = Dequantised(w3, kind),
                  f2 = Dequantised(w2, kind);
    const ExpertWeights quantised({w1.View(), w3.View(), w2.View(), bias, {}, {}}, nullptr, kind);
    const ExpertWeights floats({f1.View(), f3.View(), f2.View(), bias, {}, {}}, nullptr);
    EXPECT_EQ(run(quantised), run(floats));
  }
}

TEST(ExpertMlpIsaTest, AllInstructionSetsGiveTheSameBits) {
  const int64_t d = 70, f = 1090;
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Weights w1(dtype, f, d, 1), w3(dtype, f, d, 2), w2(dtype, d, f, 3);
    for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
      const ExpertWeights expert({w1.View(), w3.View(), w2.View(), {}, {}, {}}, nullptr, kind);
      const std::vector<float> x = Random(9 * d, 4);
      const std::vector<int32_t> rows = {0, 1, 2, 3, 4, 5, 6, 7, 8};
      ExpectSameBitsOnAllIsas([&] {
        std::vector<float> y(9 * d);
        ExpertMlp({{&expert, rows, rows}}, x.data(), 9, y.data(), nullptr);
        return y;
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, ExpertMlpTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace gatefold::kernels

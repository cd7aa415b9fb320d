#include "gatefold/kernels/rows.h"

#include <cmath>
#include <vector>

#include "gatefold/kernels/kernels_fixture.h"
#include "gmock/gmock.h"

namespace gatefold::kernels {
namespace {

using RowsTest = KernelsTest;

using testing::ElementsAre;

TEST_P(RowsTest, RmsNormMatchesTheDefinition) {
  for (int64_t d : {1, 15, 16, 67}) {
    const std::vector<float> x = Random(3 * d, 1), weight = Random(d, 2);
    std::vector<float> y(3 * d);
    RmsNorm(x.data(), weight.data(), 1e-5f, y.data(), 3, d);
    for (int64_t i = 0; i < 3 * d; ++i) {
      double squares = 0;
      for (int64_t j = 0; j < d; ++j) squares += std::pow(x[i / d * d + j], 2);
      EXPECT_NEAR(y[i], x[i] / std::sqrt(squares / d + 1e-5) * weight[i % d], 1e-6);
    }
  }
}

TEST_P(RowsTest, FoldAddsWeightedAnswers) {
  for (int64_t d : {1, 16, 37}) {
    const std::vector<float> answers = Random(2 * 3 * d, 1), weights = Random(6, 2);
    std::vector<float> x = Random(2 * d, 3);
    std::vector<float> want = x;
    for (int64_t i = 0; i < 2 * d; ++i) {
      for (int k = 0; k < 3; ++k) {
        want[i] += weights[i / d * 3 + k] * answers[(i / d * 3 + k) * d + i % d];
      }
    }
    Fold(answers.data(), weights.data(), x.data(), 2, 3, d, nullptr);
    for (int64_t i = 0; i < 2 * d; ++i) EXPECT_NEAR(x[i], want[i], 1e-6);
  }
}

TEST(RopeTest, TurnsPairsOfHalves) {
  float x[] = {1, 2, 3, 4};
  const float cos[] = {0, 1}, sin[] = {1, 0};
  Rope(x, 1, 4, cos, sin);
  EXPECT_THAT(x, ElementsAre(-3, 2, 1, 4));
}

TEST(RoundTest, RoundsToBF16InPlace) {
  float x[] = {1.0f + 0x1p-9f, 3.0f};
  RoundToBF16(x, 2);
  EXPECT_THAT(x, ElementsAre(1.0f, 3.0f));
}

TEST(RowsIsaTest, AllInstructionSetsGiveTheSameBits) {
  for (int64_t d : {1, 15, 16, 67, 1024}) {
    const std::vector<float> x = Random(4 * d, 1), weight = Random(4 * d, 2);
    ExpectSameBitsOnAllIsas([&] {
      std::vector<float> y = x, h(4 * d);
      RmsNorm(x.data(), weight.data(), 1e-5f, y.data(), 4, d);
      Kernels().silu_mul(x.data(), y.data(), h.data(), 4 * d);
      Fold(weight.data(), x.data(), h.data(), 2, 2, d, nullptr);
      y.insert(y.end(), h.begin(), h.end());
      return y;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, RowsTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace gatefold::kernels

#include "gatefold/kernels/rows.h"

#include <bit>
#include <cmath>
#include <cstring>
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

// Every bfloat16, and what lies beside it and half-way to the next: infinities, subnormals, NaN.
TEST_P(RowsTest, RoundsToBF16AndBack) {
  std::vector<float> x;
  for (uint32_t high = 0; high < 0x10000; ++high) {
    for (uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  x.pop_back();  // an odd number of them
  std::vector<uint16_t> halves(x.size());
  ToBF16(x.data(), x.size(), halves.data());
  std::vector<char> bytes(1 + 2 * x.size());  // an odd address
  std::memcpy(&bytes[1], halves.data(), 2 * x.size());
  std::vector<float> back(x.size()), rounded = x, by_threads = x;
  FromBF16(&bytes[1], back.size(), back.data());
  RoundToBF16(rounded.data(), rounded.size());
  ThreadPool threads(2, absl::ZeroDuration());
  RoundToBF16(by_threads.data(), by_threads.size(), &threads);
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(halves[i], FloatToBF16(x[i])) << x[i];
    const uint32_t bits = std::bit_cast<uint32_t>(BF16ToFloat(halves[i]));
    ASSERT_EQ(std::bit_cast<uint32_t>(back[i]), bits) << x[i];
    ASSERT_EQ(std::bit_cast<uint32_t>(rounded[i]), bits) << x[i];
    ASSERT_EQ(std::bit_cast<uint32_t>(by_threads[i]), bits) << x[i];
  }
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

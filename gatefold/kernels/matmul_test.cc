#include "gatefold/kernels/matmul.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "gatefold/kernels/kernels_fixture.h"
#include "gatefold/kernels/packed_matrix.h"

namespace gatefold::kernels {
namespace {

using MatMulTest = KernelsTest;

// Sums of K terms of size about 1 in float32: K/16 steps per lane, each wrong by half a unit in the
// last place of a sum that grows as the root of K.
float Tolerance(int64_t k) { return 1e-6f * (4.0f + std::sqrt(static_cast<float>(k))); }

TEST_P(MatMulTest, MatMulMatchesTheDefinition) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (int64_t n_in : {1, 22, 31, 32, 33, 176, 2100}) {
      for (int64_t n_out : {1, 22, 45}) {
        const Weights w(dtype, n_out, n_in, 1);
        const PackedMatrix packed(w.View(), nullptr);
        for (int64_t n_rows : {1, 2, 3, 4, 5, 6, 7, 20}) {
          if (n_in > 1000 && n_rows % 3 == 0) continue;  // long enough as it is
          const std::vector<float> x = Random(n_rows * n_in, 2);
          const std::vector<float> want = Reference(w, x, n_rows);
          std::vector<float> y(n_rows * n_out, NAN);
          MatMul(packed, x.data(), y.data(), n_rows, nullptr);
          for (size_t i = 0; i < y.size(); ++i) {
            ASSERT_NEAR(y[i], want[i], Tolerance(n_in))
                << DTypeName(dtype) << " " << n_rows << "x" << n_in << "x" << n_out;
          }
        }
      }
    }
  }
}

TEST_P(MatMulTest, ARowsBitsDoNotDependOnItsBatchOrTheThreads) {
  const Weights w(DType::kBF16, 301, 515, 3);
  for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
    const PackedMatrix packed(w.View(), nullptr, kind);
    const std::vector<float> x = Random(37 * 515, 4);
    std::vector<float> alone(37 * 301);
    for (int r = 0; r < 37; ++r) MatMul(packed, &x[r * 515], &alone[r * 301], 1, nullptr);
    for (int n_threads : {1, 2, 3}) {
      ThreadPool pool(n_threads, absl::ZeroDuration());
      std::vector<float> batch(37 * 301);
      MatMul(packed, x.data(), batch.data(), 37, &pool);
      EXPECT_EQ(batch, alone) << n_threads;
    }
  }
}

// Values of every size, groups of zeros, and groups whose scales are subnormal.
Weights WithOddGroups(DType dtype, int64_t n_out, int64_t n_in, uint32_t seed) {
  Weights w(dtype, n_out, n_in, seed);
  for (size_t group = 0; group * kQuantGroup < w.values.size(); ++group) {
    const size_t begin = group * kQuantGroup, end = std::min(begin + kQuantGroup, w.values.size());
    const float factor = group % 5 == 0   ? 0.0f
                         : group % 7 == 0 ? 0x1p-128f
                         : group % 3 == 0 ? 64.0f
                                          : 1.0f;
    for (size_t i = begin; i < end && factor != 1; ++i) w.Set(i, w.values[i] * factor);
  }
  return w;
}

TEST_P(MatMulTest, QuantisedWeightsGiveTheBitsOfTheFloatsTheyStandFor) {
  for (WeightKind kind : kQuantisedKinds) {
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      for (int64_t n_in : {1, 31, 32, 33, 176, 1024, 1057, 2100}) {
        for (int64_t n_out : {1, 6, 45}) {
          const Weights w = WithOddGroups(dtype, n_out, n_in, 20);
          const PackedMatrix packed(w.View(), nullptr, kind);
          const PackedMatrix floats(Dequantised(w, kind).View(), nullptr);
          for (int64_t n_rows : {1, 2, 3, 4, 5, 6, 7, 8, 23, 24, 25, 50}) {
            if (n_in > 1000 && n_out > 6 && n_rows % 3 == 0) continue;  // long enough as it is
            const std::vector<float> x = Random(n_rows * n_in, 21);
            std::vector<float> y(n_rows * n_out, NAN), want(n_rows * n_out);
            MatMul(packed, x.data(), y.data(), n_rows, nullptr);
            MatMul(floats, x.data(), want.data(), n_rows, nullptr);
            ASSERT_EQ(std::memcmp(y.data(), want.data(), y.size() * sizeof(float)), 0)
                << DTypeName(dtype) << " " << n_rows << "x" << n_in << "x" << n_out;
          }
        }
      }
    }
  }
}

// Each alone, read by a row that is one there and zero elsewhere.
TEST_P(MatMulTest, QuantisedWeightsAreNearTheCheckpoints) {
  const int64_t n_in = 75, n_out = 11;
  std::vector<float> x(n_in * n_in), y(n_in * n_out);
  for (int64_t i = 0; i < n_in; ++i) x[i * n_in + i] = 1;
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Weights w(dtype, n_out, n_in, 22);
    const float most = *std::max_element(w.values.begin(), w.values.end(), [](float a, float b) {
      return std::fabs(a) < std::fabs(b);
    });
    for (WeightKind kind : kQuantisedKinds) {
      // Half a step, and of int4 a whole one where the value opposite to the greatest is as great;
      // the scale is rounded, too.
      const float step = std::fabs(most) / (kind == WeightKind::kInt8 ? 2 * 127.0f : 8.0f);
      MatMul(PackedMatrix(w.View(), nullptr, kind), x.data(), y.data(), n_in, nullptr);
      for (int64_t i = 0; i < n_in; ++i) {
        for (int64_t o = 0; o < n_out; ++o) {
          EXPECT_NEAR(y[i * n_out + o], w.values[o * n_in + i], step + std::fabs(most) / 256);
        }
      }
    }
  }
}

TEST_P(MatMulTest, ABrokenWeightShowsInItsOutputAlone) {
  for (WeightKind kind : kQuantisedKinds) {
    for (const float broken : {NAN, INFINITY, -INFINITY}) {
      Weights w(DType::kF32, 9, 70, 23);
      w.Set(3 * 70 + 69, broken);
      const std::vector<float> x = Random(30 * 70, 24);
      std::vector<float> y(30 * 9);
      MatMul(PackedMatrix(w.View(), nullptr, kind), x.data(), y.data(), 30, nullptr);
      for (int i = 0; i < 30 * 9; ++i) EXPECT_EQ(std::isnan(y[i]), i % 9 == 3) << i;
    }
  }
}

TEST_P(MatMulTest, BiasIsAddedAtTheEnd) {
  const Weights w(DType::kF32, 9, 40, 5);
  const PackedMatrix packed(w.View(), nullptr);
  const std::vector<float> x = Random(80, 6), bias = Random(9, 7);
  std::vector<float> plain(18), biased(18);
  MatMul(packed, x.data(), plain.data(), 2, nullptr);
  MatMul(packed, x.data(), biased.data(), 2, nullptr, bias.data());
  for (int i = 0; i < 18; ++i) EXPECT_EQ(biased[i], plain[i] + bias[i % 9]);
}

TEST_P(MatMulTest, FillPutsMatricesOnTopOfEachOther) {
  const Weights a(DType::kF16, 7, 33, 8), b(DType::kF16, 6, 33, 9);
  PackedMatrix both(DType::kF16, 13, 33);
  both.Fill(0, a.View(), nullptr);
  both.Fill(7, b.View(), nullptr);
  const std::vector<float> x = Random(33, 10);
  std::vector<float> y(13), ya(7), yb(6);
  MatMul(both, x.data(), y.data(), 1, nullptr);
  MatMul(PackedMatrix(a.View(), nullptr), x.data(), ya.data(), 1, nullptr);
  MatMul(PackedMatrix(b.View(), nullptr), x.data(), yb.data(), 1, nullptr);
  ya.insert(ya.end(), yb.begin(), yb.end());
  EXPECT_EQ(y, ya);
}

TEST_P(MatMulTest, ReadsRowsAndColumnsOfALargerMatrix) {
  const Weights w(DType::kBF16, 11, 90, 11);
  const MatrixView part = w.View().Rows(2, 7).Columns(5, 41);
  const std::vector<float> x = Random(3 * 41, 12);
  std::vector<float> y(3 * 7);
  MatMul(PackedMatrix(part, nullptr), x.data(), y.data(), 3, nullptr);
  for (int i = 0; i < 21; ++i) {
    double want = 0;
    for (int j = 0; j < 41; ++j) want += w.values[(2 + i % 7) * 90 + 5 + j] * x[i / 7 * 41 + j];
    EXPECT_NEAR(y[i], want, Tolerance(41));
  }
}

TEST_P(MatMulTest, WritesNothingBesideItsOutputs) {
  const Weights w(DType::kF32, 6, 33, 13);
  const std::vector<float> x = Random(4 * 33, 14), bias = Random(6, 15);
  std::vector<float> y(4 * 6 + 8, 7.0f);
  MatMul(PackedMatrix(w.View(), nullptr), x.data(), y.data(), 4, nullptr, bias.data());
  for (int i = 0; i < 8; ++i) EXPECT_EQ(y[24 + i], 7.0f);
}

TEST(MatMulIsaTest, AllInstructionSetsGiveTheSameBits) {
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (int64_t n_in : {1, 31, 64, 515, 1057, 2100}) {
      const Weights w(dtype, 13, n_in, 16);
      for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
        const PackedMatrix packed(w.View(), nullptr, kind);
        const std::vector<float> x = Random(11 * n_in, 17);
        ExpectSameBitsOnAllIsas([&] {
          std::vector<float> all;
          for (int64_t n_rows = 1; n_rows <= 11; ++n_rows) {
            std::vector<float> y(n_rows * 13);
            MatMul(packed, x.data(), y.data(), n_rows, nullptr);
            all.insert(all.end(), y.begin(), y.end());
          }
          return all;
        });
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, MatMulTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace gatefold::kernels

#include "gatefold/cuda/rows.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "gatefold/cuda/tiles.h"
#include "tests/gpu/gpu_test.h"

namespace gatefold::cuda {
namespace {

constexpr float kEps = 1e-5f;

class RowsTest : public GpuTest {};

__nv_bfloat16* Halves(const DeviceArray<uint16_t>& buffer) {
  return reinterpret_cast<__nv_bfloat16*>(buffer.get());
}

std::vector<double> Norm(const std::vector<float>& x, const std::vector<float>& weight) {
  const size_t d = weight.size();
  std::vector<double> y(x.size());
  for (size_t r = 0; r < x.size() / d; ++r) {
    double sum = 0;
    for (size_t i = 0; i < d; ++i) sum += static_cast<double>(x[r * d + i]) * x[r * d + i];
    const double scale = 1 / std::sqrt(sum / d + kEps);
    for (size_t i = 0; i < d; ++i) y[r * d + i] = x[r * d + i] * scale * weight[i];
  }
  return y;
}

// What lies in activations of one group of n_rows, row by row.
std::vector<uint16_t> RowsOf(const std::vector<uint16_t>& activations, int64_t n_rows, int64_t d) {
  const int64_t n_rounded = RoundUp(n_rows, kRowsAlign);
  std::vector<uint16_t> rows;
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t i = 0; i < d; ++i) {
      rows.push_back(activations[ActivationOffset(r, i, n_rounded) / 2]);
    }
  }
  return rows;
}

std::vector<uint16_t> NormOf(const std::vector<float>& x, const std::vector<float>& weight) {
  const int64_t d = weight.size(), n_rows = x.size() / d;
  const DeviceArray<float> x_device(x), weight_device(weight);
  const DeviceArray<uint16_t> activations(ActivationBytes(n_rows, d) / 2);
  EXPECT_CUDA(RmsNormActivations(x_device.get(), weight_device.get(), kEps, activations.get(),
                                 n_rows, d, nullptr));
  return activations.Read();
}

TEST_F(RowsTest, NormMatchesTheDefinition) {
  for (int64_t n_rows : {1, 8, 11}) {
    for (int64_t d : {8, 64, 1000, 1024, 1032, 4096, 5120}) {
      const std::vector<float> x = RandomFloats(n_rows * d, 1, d), weight = RandomFloats(d, 1, d + 1);
      const std::vector<uint16_t> activations = NormOf(x, weight);
      const std::vector<double> want = Norm(x, weight);
      const std::vector<uint16_t> rows = RowsOf(activations, n_rows, d);
      int n_other = 0;  // float32 sums: seldom is another bfloat16 the nearest
      size_t n_written = 0;
      for (size_t i = 0; i < rows.size(); ++i) {
        n_other += rows[i] != ToBF16(static_cast<float>(want[i]));
        ASSERT_NEAR(FromBF16(rows[i]), want[i], std::abs(want[i]) / 128);
        n_written += rows[i] != 0;
      }
      EXPECT_LE(n_other, 1 + static_cast<int>(rows.size()) / 500) << n_rows << " rows of " << d;
      // What is not a row's is zero.
      EXPECT_EQ(activations.size() - std::count(activations.begin(), activations.end(), 0), n_written);
    }
  }
}

TEST_F(RowsTest, ARowAloneHasTheBitsItHasAmongOthers) {
  const int64_t d = 4096;
  const std::vector<float> x = RandomFloats(7 * d, 1, 4), weight = RandomFloats(d, 1, 5);
  const std::vector<uint16_t> all = RowsOf(NormOf(x, weight), 7, d);
  const std::vector<uint16_t> one = RowsOf(NormOf({x.begin() + 6 * d, x.end()}, weight), 1, d);
  EXPECT_EQ(FirstDifference(one, {all.begin() + 6 * d, all.end()}), -1);
}

TEST_F(RowsTest, AddsRows) {
  const int64_t d = 1544, n_rows = 3;
  const std::vector<float> x = RandomFloats(n_rows * d, 1, 1), added = RandomFloats(x.size(), 1, 2);
  const DeviceArray<float> x_device(x), added_device(added);
  EXPECT_CUDA(AddRows(x_device.get(), added_device.get(), n_rows, d, nullptr));
  std::vector<float> want(x.size());
  for (size_t i = 0; i < x.size(); ++i) want[i] = x[i] + added[i];
  EXPECT_EQ(FirstDifference(x_device.Read(), want), -1);
}

TEST_F(RowsTest, RoundsAndGathers) {
  const int64_t d = 1032;
  const std::vector<float> x = RandomFloats(5 * d, 1, 4);
  const DeviceArray<float> x_device(x), some(3 * d);
  const DeviceArray<int32_t> rows(std::vector<int32_t>{4, 0, 4});
  EXPECT_CUDA(RoundRows(x_device.get(), 5, d, nullptr));
  EXPECT_CUDA(GatherRows(x_device.get(), rows.get(), some.get(), 3, d, nullptr));
  std::vector<float> rounded, want;
  for (float value : x) rounded.push_back(FromBF16(ToBF16(value)));
  EXPECT_EQ(FirstDifference(x_device.Read(), rounded), -1);
  for (int64_t row : {4, 0, 4}) {
    want.insert(want.end(), rounded.begin() + row * d, rounded.begin() + (row + 1) * d);
  }
  EXPECT_EQ(FirstDifference(some.Read(), want), -1);
}

TEST_F(RowsTest, Embeds) {
  const int64_t d = 1032, vocab = 11;
  std::vector<uint16_t> rounded;
  for (float value : RandomFloats(vocab * d, 1, 6)) rounded.push_back(ToBF16(value));
  const DeviceArray<uint16_t> halves(rounded);
  const DeviceArray<float> x(4 * d);
  const DeviceArray<int32_t> ids(std::vector<int32_t>{10, 0, 11, 3});
  EXPECT_CUDA(Embed(Halves(halves), vocab, ids.get(), x.get(), 4, d, nullptr));
  const std::vector<float> out = x.Read();
  for (int64_t i = 0; i < d; ++i) {
    ASSERT_EQ(out[i], FromBF16(rounded[10 * d + i]));
    ASSERT_EQ(out[d + i], FromBF16(rounded[i]));
    ASSERT_TRUE(std::isnan(out[2 * d + i]));
    ASSERT_EQ(out[3 * d + i], FromBF16(rounded[3 * d + i]));
  }
}

TEST_F(RowsTest, RefusesWhatItDoesNotServe) {
  const DeviceArray<float> x(64);
  float* const p = x.get();
  EXPECT_EQ(AddRows(p, p, 1, 12, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(AddRows(p + 1, p, 1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RmsNormActivations(p, nullptr, kEps, p, 1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RoundRows(p, -1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(AddRows(p, p, 0, 8, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace gatefold::cuda

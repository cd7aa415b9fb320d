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

TEST_F(RowsTest, NormMatchesTheDefinition) {
  for (int64_t d : {8, 64, 1000, 1024, 1032, 4096, 5120}) {
    const std::vector<float> x = RandomFloats(3 * d, 1, d), weight = RandomFloats(d, 1, d + 1);
    const DeviceArray<float> x_device(x), weight_device(weight), y(x.size());
    const DeviceArray<uint16_t> halves(x.size());
    EXPECT_CUDA(RmsNorm(x_device.get(), weight_device.get(), kEps, y.get(), nullptr, 3, d, nullptr));
    EXPECT_CUDA(RmsNorm(x_device.get(), weight_device.get(), kEps, nullptr, Halves(halves), 3, d,
                       nullptr));
    const std::vector<float> out = y.Read();
    EXPECT_LT(RelativeError(out, Norm(x, weight)), 1e-6) << d;
    std::vector<uint16_t> want;
    for (float value : out) want.push_back(ToBF16(value));
    EXPECT_EQ(FirstDifference(halves.Read(), want), -1) << d;
    // In place.
    EXPECT_CUDA(RmsNorm(x_device.get(), weight_device.get(), kEps, x_device.get(), nullptr, 3, d,
                       nullptr));
    EXPECT_EQ(FirstDifference(x_device.Read(), out), -1) << d;
  }
}

TEST_F(RowsTest, NormsIntoActivations) {
  for (int64_t n_rows : {1, 8, 11}) {
    for (int64_t d : {8, 128, 1032}) {
      const std::vector<float> x = RandomFloats(n_rows * d, 1, d), weight = RandomFloats(d, 1, 2);
      const DeviceArray<float> x_device(x), weight_device(weight);
      const DeviceArray<uint16_t> rows(x.size());
      const DeviceArray<uint16_t> activations(ActivationBytes(n_rows, d) / 2);
      EXPECT_CUDA(RmsNorm(x_device.get(), weight_device.get(), kEps, nullptr, Halves(rows), n_rows,
                          d, nullptr));
      EXPECT_CUDA(RmsNormActivations(x_device.get(), weight_device.get(), kEps, activations.get(),
                                     n_rows, d, nullptr));
      const std::vector<uint16_t> halves = rows.Read();
      const int64_t n_rounded = RoundUp(n_rows, kRowsAlign);
      std::vector<uint16_t> want(activations.size(), 0);
      for (int64_t r = 0; r < n_rows; ++r) {
        for (int64_t i = 0; i < d; ++i) {
          const int64_t at = i / kTileInputs * n_rounded * kTileInputs * 2 +
                             SwizzledOffset(r, static_cast<int>(i % kTileInputs));
          want[at / 2] = halves[r * d + i];
        }
      }
      EXPECT_EQ(FirstDifference(activations.Read(), want), -1) << n_rows << " rows of " << d;
    }
  }
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

TEST_F(RowsTest, AddsFirst) {
  const int64_t d = 1544;
  const std::vector<float> x = RandomFloats(5 * d, 1, 1), added = RandomFloats(5 * d, 1, 2),
                           weight = RandomFloats(d, 1, 3);
  std::vector<float> sum(x.size());
  for (size_t i = 0; i < x.size(); ++i) sum[i] = x[i] + added[i];
  const DeviceArray<float> x_device(x), added_device(added), weight_device(weight),
      sum_device(sum), y(x.size()), want(x.size());
  EXPECT_CUDA(AddRmsNorm(x_device.get(), added_device.get(), weight_device.get(), kEps, y.get(),
                        nullptr, 5, d, nullptr));
  EXPECT_EQ(FirstDifference(x_device.Read(), sum), -1);
  EXPECT_CUDA(
      RmsNorm(sum_device.get(), weight_device.get(), kEps, want.get(), nullptr, 5, d, nullptr));
  EXPECT_EQ(FirstDifference(y.Read(), want.Read()), -1);
}

TEST_F(RowsTest, ARowAloneHasTheBitsItHasAmongOthers) {
  const int64_t d = 4096;
  const std::vector<float> x = RandomFloats(7 * d, 1, 4), weight = RandomFloats(d, 1, 5);
  const DeviceArray<float> x_device(x), weight_device(weight), all(x.size()), one(d);
  EXPECT_CUDA(RmsNorm(x_device.get(), weight_device.get(), kEps, all.get(), nullptr, 7, d, nullptr));
  EXPECT_CUDA(RmsNorm(x_device.get() + 6 * d, weight_device.get(), kEps, one.get(), nullptr, 1, d,
                     nullptr));
  const std::vector<float> out = all.Read();
  EXPECT_EQ(FirstDifference(one.Read(), {out.begin() + 6 * d, out.end()}), -1);
}

TEST_F(RowsTest, EmbedsAndRounds) {
  const int64_t d = 1032, vocab = 11;
  const std::vector<float> table = RandomFloats(vocab * d, 1, 6);
  const DeviceArray<float> table_device(table), x(4 * d);
  const DeviceArray<uint16_t> halves(table.size());
  EXPECT_CUDA(RoundToBF16(table_device.get(), Halves(halves), vocab * d, nullptr));
  std::vector<uint16_t> rounded;
  for (float value : table) rounded.push_back(ToBF16(value));
  EXPECT_EQ(FirstDifference(halves.Read(), rounded), -1);
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
  EXPECT_EQ(RmsNorm(p, p, kEps, p, nullptr, 1, 12, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RmsNorm(p + 1, p, kEps, p, nullptr, 1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RmsNorm(p, p, kEps, nullptr, nullptr, 1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(AddRmsNorm(p, p + 8, p, kEps, p, nullptr, 1, 8, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(RmsNorm(p, p, kEps, p, nullptr, 0, 8, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace gatefold::cuda

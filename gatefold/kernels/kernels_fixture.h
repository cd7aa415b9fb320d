#pragma once

// What the kernels' tests share: seeded values, weights of any type, and the instruction sets that
// this machine has.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "gatefold/kernels/isa.h"
#include "gatefold/tensor/dtype.h"
#include "gatefold/tensor/quantise.h"
#include "gatefold/tensor/tensor_view.h"
#include "gtest/gtest.h"

namespace gatefold::kernels {

// Uniform in [-1, 1).
inline std::vector<float> Random(size_t n, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(n);
  for (float& value : values) value = uniform(engine);
  return values;
}

// A matrix of any type with its values as floats.
struct Weights {
  Weights(DType dtype, int64_t n_out, int64_t n_in, uint32_t seed)
      : dtype(dtype), n_out(n_out), n_in(n_in), values(Random(n_out * n_in, seed)) {
    bytes.resize(values.size() * DTypeBytes(dtype) + 1);
    for (size_t i = 0; i < values.size(); ++i) Set(i, values[i]);
  }
  // As near to it as the type can be; of float16, any value.
  void Set(size_t i, float value) {
    values[i] = value;
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[1 + 4 * i], &value, 4);
      return;
    }
    uint16_t half = FloatToBF16(value);
    if (dtype == DType::kF16) half &= 0xbfff;  // below 2
    values[i] = dtype == DType::kBF16 ? BF16ToFloat(half) : F16ToFloat(half);
    std::memcpy(&bytes[1 + 2 * i], &half, 2);
  }
  // Unaligned on purpose: checkpoints promise nothing.
  MatrixView View() const { return {dtype, n_out, n_in, n_in, bytes.data() + 1}; }

  DType dtype;
  int64_t n_out, n_in;
  std::vector<float> values;
  std::vector<char> bytes;
};

// The float32 weights that w stands for, quantised.
inline Weights Dequantised(const Weights& w, WeightKind kind) {
  Weights back(DType::kF32, w.n_out, w.n_in, 0);
  for (int64_t row = 0; row < w.n_out; ++row) {
    for (int64_t first = 0; first < w.n_in; first += kQuantGroup) {
      float x[kQuantGroup] = {};
      const size_t at = row * w.n_in + first;
      const int n = static_cast<int>(std::min<int64_t>(kQuantGroup, w.n_in - first));
      std::copy_n(&w.values[at], n, x);
      const QuantisedGroup group = kind == WeightKind::kInt8 ? Quantise<8>(x) : Quantise<4>(x);
      for (int i = 0; i < n; ++i) back.Set(at + i, group.q[i] * BF16ToFloat(group.scale));
    }
  }
  return back;
}

inline constexpr WeightKind kQuantisedKinds[] = {WeightKind::kInt8, WeightKind::kInt4};

// The product of every row of x with w, in double precision.
inline std::vector<float> Reference(const Weights& w, const std::vector<float>& x, int64_t n_rows) {
  std::vector<float> y(n_rows * w.n_out);
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t o = 0; o < w.n_out; ++o) {
      double sum = 0;
      for (int64_t i = 0; i < w.n_in; ++i) {
        sum += static_cast<double>(w.values[o * w.n_in + i]) * x[r * w.n_in + i];
      }
      y[r * w.n_out + o] = static_cast<float>(sum);
    }
  }
  return y;
}

inline std::vector<std::string> Isas() {
  std::vector<std::string> isas;
  for (const char* isa : {"scalar", "avx2", "avx512"}) {
    if (SelectIsa(isa).ok()) isas.push_back(isa);
  }
  return isas;
}

// A test of one instruction set's kernels.
class KernelsTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(SelectIsa(GetParam()).ok()); }
  void TearDown() override { ASSERT_TRUE(SelectIsa("auto").ok()); }
};

// compute() gives the same bits under every instruction set.
template <typename Compute>
void ExpectSameBitsOnAllIsas(Compute compute) {
  ASSERT_TRUE(SelectIsa("scalar").ok());
  const std::vector<float> scalar = compute();
  for (const std::string& isa : Isas()) {
    ASSERT_TRUE(SelectIsa(isa).ok());
    const std::vector<float> values = compute();
    ASSERT_EQ(values.size(), scalar.size());
    EXPECT_EQ(std::memcmp(values.data(), scalar.data(), values.size() * sizeof(float)), 0) << isa;
  }
  ASSERT_TRUE(SelectIsa("auto").ok());
}

}  // namespace gatefold::kernels

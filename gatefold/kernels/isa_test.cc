#include "gatefold/kernels/isa.h"

#include <pmmintrin.h>
#include <xmmintrin.h>

#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gatefold/kernels/kernels_fixture.h"
#include "gatefold/kernels/matmul.h"
#include "gmock/gmock.h"

namespace gatefold::kernels {
namespace {

using IsaKernelsTest = KernelsTest;

TEST_P(IsaKernelsTest, ExpIsRightToTwoUnits) {
  for (float x = -87.0f; x < 88.0f; x += 0.0137f) {
    float in[16], out[16];
    for (int j = 0; j < 16; ++j) in[j] = x + 0.0007f * j;
    Kernels().exp16(in, out);
    for (int j = 0; j < 16; ++j) {
      const double want = std::exp(static_cast<double>(in[j]));
      ASSERT_NEAR(out[j] / want, 1.0, 2.5e-7) << in[j];
    }
  }
}

TEST_P(IsaKernelsTest, ExpKeepsItsEnds) {
  float in[16] = {0, -87.3f, -1000, -INFINITY, 88.3f, 1000, INFINITY, NAN}, out[16];
  Kernels().exp16(in, out);
  EXPECT_EQ(out[0], 1.0f);
  EXPECT_EQ(out[2], out[1]);
  EXPECT_EQ(out[3], out[1]);
  EXPECT_LT(out[1], 1.3e-38f);
  EXPECT_EQ(out[5], out[4]);
  EXPECT_EQ(out[6], out[4]);
  EXPECT_TRUE(std::isnan(out[7]));
}

TEST(IsaTest, AllInstructionSetsAreOneNumericsClassForEachKindOfWeights) {
  std::set<uint64_t> of_kinds;
  for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
    std::vector<uint64_t> classes;
    for (const std::string& isa : Isas()) {
      ASSERT_TRUE(SelectIsa(isa).ok());
      classes.push_back(NumericsClass(kind));
    }
    ASSERT_TRUE(SelectIsa("auto").ok());
    EXPECT_THAT(classes, testing::Each(classes[0]));
    of_kinds.insert(classes[0]);
  }
  EXPECT_EQ(of_kinds.size(), 3);
}

TEST(IsaTest, UnusualArithmeticIsAnotherNumericsClass) {
  const std::vector<float> tiny(32, 0x1p-130f), x(32, 1.0f);
  const auto product = [&](uint32_t bits) {
    const uint32_t before = _mm_getcsr();
    _mm_setcsr(before | bits);
    float y[4];
    MatMul(PackedMatrix({DType::kF32, 1, 32, 32, tiny.data()}, nullptr), x.data(), y, 1, nullptr);
    const uint64_t numerics_class = NumericsClass();
    _mm_setcsr(before);
    return std::pair(y[0], numerics_class);
  };
  const auto usual = product(0);
  const uint32_t results = _MM_FLUSH_ZERO_ON, operands = _MM_DENORMALS_ZERO_ON;
  EXPECT_NE(product(results).second, usual.second);
  EXPECT_NE(product(operands).second, usual.second);
  EXPECT_NE(product(_MM_ROUND_UP).second, usual.second);
  EXPECT_NE(product(operands).first, usual.first);
}

TEST(IsaTest, RefusesUnknownNames) {
  EXPECT_EQ(SelectIsa("sse9").code(), absl::StatusCode::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Isa, IsaKernelsTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace gatefold::kernels

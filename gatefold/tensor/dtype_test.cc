#include "gatefold/tensor/dtype.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

TEST(DTypeTest, BF16RoundsToNearestEven) {
  EXPECT_EQ(BF16ToFloat(FloatToBF16(1.0f)), 1.0f);
  EXPECT_EQ(FloatToBF16(1.0f + 0x1p-8f), FloatToBF16(1.0f));  // halfway, to the even one below
  EXPECT_EQ(FloatToBF16(1.0f + 3 * 0x1p-8f), FloatToBF16(1.0f + 4 * 0x1p-8f));
  EXPECT_EQ(BF16ToFloat(FloatToBF16(std::numeric_limits<float>::max())),
            std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(BF16ToFloat(FloatToBF16(std::nanf("")))));
}

TEST(DTypeTest, EveryBF16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float value = BF16ToFloat(static_cast<uint16_t>(bits));
    if (!std::isnan(value)) {
      EXPECT_EQ(FloatToBF16(value), bits);
    }
  }
}

TEST(DTypeTest, EveryHalfWidensToItsValue) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const int exponent = static_cast<int>(bits >> 10) & 0x1f;
    const int mantissa = static_cast<int>(bits) & 0x3ff;
    const float sign = bits & 0x8000 ? -1.0f : 1.0f;
    const float value = F16ToFloat(static_cast<uint16_t>(bits));
    if (exponent == 31) {
      EXPECT_TRUE(mantissa != 0 ? std::isnan(value) : std::isinf(value));
    } else if (exponent == 0) {
      EXPECT_EQ(value, sign * std::ldexp(static_cast<float>(mantissa), -24));
    } else {
      EXPECT_EQ(value, sign * std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25));
    }
  }
}

}  // namespace
}  // namespace gatefold

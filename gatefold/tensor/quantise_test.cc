#include "gatefold/tensor/quantise.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>

#include "gatefold/tensor/dtype.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using Group = float[kQuantGroup];

// The formula word for word, in wide arithmetic where that changes nothing.
template <int kBits>
void ExpectTheFormula(const Group& x) {
  const QuantisedGroup group = Quantise<kBits>(x);
  float extreme = 0;
  for (float value : x) {
    if (std::fabs(value) > std::fabs(extreme)) extreme = value;
  }
  const uint16_t scale = FloatToBF16(kBits == 8 ? std::fabs(extreme) / 127.0f : extreme / -8.0f);
  ASSERT_EQ(group.scale, scale);
  const float d = BF16ToFloat(scale);
  for (int i = 0; i < kQuantGroup; ++i) {
    const float q = d == 0 ? 0 : std::nearbyint(x[i] / d);
    ASSERT_EQ(group.q[i], kBits == 8 ? std::clamp(q, -127.0f, 127.0f) : std::clamp(q, -8.0f, 7.0f))
        << x[i] << " / " << d;
  }
}

TEST(QuantiseTest, FollowsItsFormulaFromTheSmallestFloatsToTheGreatest) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (int exponent = -149; exponent <= 128; ++exponent) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      Group x;
      for (float& value : x) value = std::ldexp(uniform(random), exponent);
      if (repeat == 0)
        std::fill_n(x, kQuantGroup / 2, std::ldexp(0.75f, exponent));  // many greatest
      ExpectTheFormula<8>(x);
      ExpectTheFormula<4>(x);
    }
  }
}

TEST(QuantiseTest, TiesGoToEven) {
  Group x = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f};
  const QuantisedGroup group = Quantise<8>(x);
  EXPECT_EQ(BF16ToFloat(group.scale), 1.0f);
  for (int i = 0; const int q : {127, 0, 2, 2, 0, -2, 0}) EXPECT_EQ(group.q[i++], q);
}

TEST(QuantiseTest, Int4HasTheGreatestValueAtTheLongEndOfItsRange) {
  for (const float sign : {1.0f, -1.0f}) {
    Group x = {0.5f * sign, 2 * sign, -2 * sign};
    const QuantisedGroup group = Quantise<4>(x);
    EXPECT_EQ(BF16ToFloat(group.scale), -0.25f * sign);
    for (int i = 0; const int q : {-2, -8, 7, 0}) EXPECT_EQ(group.q[i++], q);
  }
}

TEST(QuantiseTest, ZerosAndWhatIsTooSmallForAScaleAreZeros) {
  for (const float value : {0.0f, -0.0f, 1e-45f, -1e-44f}) {
    Group x;
    std::fill_n(x, kQuantGroup, value);
    for (const QuantisedGroup& group : {Quantise<8>(x), Quantise<4>(x)}) {
      EXPECT_EQ(BF16ToFloat(group.scale), 0.0f);
      for (int8_t q : group.q) EXPECT_EQ(q, 0);
    }
  }
}

TEST(QuantiseTest, AGroupWithABrokenValueIsNaN) {
  for (const float broken : {INFINITY, -INFINITY, NAN, -NAN}) {
    for (int at : {0, 31}) {
      Group x = {1, 2, 3};
      x[at] = broken;
      for (const QuantisedGroup& group : {Quantise<8>(x), Quantise<4>(x)}) {
        EXPECT_TRUE(std::isnan(BF16ToFloat(group.scale)));
        for (int8_t q : group.q) EXPECT_EQ(q, 0);
      }
    }
  }
}

}  // namespace
}  // namespace gatefold

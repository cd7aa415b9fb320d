#include "cli/plan/quantity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatefold::cli {
namespace {

double Parsed(const char* text, QuantityKind kind) {
  double value = -1;
  EXPECT_TRUE(ParseQuantity(text, kind, &value).ok()) << text;
  return value;
}

TEST(QuantityTest, KnowsUnits) {
  EXPECT_EQ(Parsed("80GiB", QuantityKind::kBytes), 80.0 * (1 << 30));
  EXPECT_EQ(Parsed("1.5TB", QuantityKind::kBytes), 1.5e12);
  EXPECT_EQ(Parsed("25Gbit/s", QuantityKind::kBytesPerSecond), 3.125e9);
  EXPECT_EQ(Parsed("3.35TB/s", QuantityKind::kBytesPerSecond), 3.35e12);
  EXPECT_EQ(Parsed("200GFLOP/s", QuantityKind::kOperationsPerSecond), 2e11);
  EXPECT_DOUBLE_EQ(Parsed("81.3us", QuantityKind::kSeconds), 81.3e-6);
  EXPECT_EQ(Parsed("2s", QuantityKind::kSeconds), 2);
}

TEST(QuantityTest, RefusesWhatHasNoUnitOrNoMeaning) {
  double value = 7;
  for (const char* text :
       {"", "80", "GiB", "-1GiB", "0GiB", "nanGiB", "infGiB", "80GiBs", "80 GFLOP/s"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseQuantity(text, QuantityKind::kBytes, &value))) << text;
  }
  EXPECT_EQ(value, 7);
}

}  // namespace
}  // namespace gatefold::cli

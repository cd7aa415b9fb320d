#include "gatefold/model/rope.h"

#include <cmath>
#include <string>

#include "gatefold/base/small_file.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace gatefold {
namespace {

using nlohmann::json;

// Published configurations, as the keys of rope_vectors.json spell them; the families themselves
// need not be served for their frequencies to be checked.
RopeConfig FromVector(const json& config) {
  RopeConfig rope;
  rope.theta = config["rope_theta"];
  const json& scaling = config["rope_scaling"];
  const std::string type = scaling.contains("rope_type") ? scaling["rope_type"] : scaling["type"];
  rope.kind = type == "llama3"   ? RopeKind::kLlama3
              : type == "linear" ? RopeKind::kLinear
                                 : RopeKind::kYarn;
  rope.factor = scaling["factor"];
  rope.original_max_positions = scaling.value("original_max_position_embeddings", 0);
  rope.low_freq_factor = scaling.value("low_freq_factor", 1.0);
  rope.high_freq_factor = scaling.value("high_freq_factor", 4.0);
  rope.beta_fast = scaling.value("beta_fast", 32.0);
  rope.beta_slow = scaling.value("beta_slow", 1.0);
  rope.mscale = scaling.value("mscale", 0.0);
  rope.mscale_all_dim = scaling.value("mscale_all_dim", 0.0);
  rope.truncate = scaling.value("truncate", true);
  return rope;
}

TEST(Rope, FrequenciesMatchPublishedConfigurations) {
  const json vectors = json::parse(*ReadSmallFile("tests/golden/rope_vectors.json", 1 << 20));
  ASSERT_EQ(vectors.size(), 7u);
  for (const auto& [name, vector] : vectors.items()) {
    const auto expected = vector["inv_freq"].get<std::vector<float>>();
    const RopeFrequencies actual =
        ComputeRopeFrequencies(FromVector(vector["config"]), static_cast<int>(2 * expected.size()));
    ASSERT_EQ(actual.inv_freq.size(), expected.size()) << name;
    EXPECT_FLOAT_EQ(actual.attention_factor, vector["attention_factor"].get<float>()) << name;
    for (size_t i = 0; i < expected.size(); ++i) {
      // A float32 power may differ in its last bit between libraries; two roundings follow.
      EXPECT_NEAR(actual.inv_freq[i], expected[i], 2.5e-7 * expected[i]) << name << " " << i;
    }
  }
}

TEST(Rope, DefaultFrequenciesFallByPowersOfTheta) {
  const RopeFrequencies f = ComputeRopeFrequencies({.theta = 10000}, 8);
  ASSERT_EQ(f.inv_freq.size(), 4u);
  EXPECT_FLOAT_EQ(f.inv_freq[0], 1);
  EXPECT_FLOAT_EQ(f.inv_freq[1], 0.1f);
  EXPECT_FLOAT_EQ(f.inv_freq[2], 0.01f);
  EXPECT_FLOAT_EQ(f.inv_freq[3], 0.001f);
  EXPECT_EQ(f.attention_factor, 1);
}

TEST(Rope, GivenAttentionFactorWins) {
  RopeConfig rope = {.kind = RopeKind::kYarn, .factor = 4, .original_max_positions = 64};
  EXPECT_FLOAT_EQ(ComputeRopeFrequencies(rope, 8).attention_factor, 0.1f * std::log(4.0f) + 1);
  rope.attention_factor = 0.5;
  EXPECT_EQ(ComputeRopeFrequencies(rope, 8).attention_factor, 0.5f);
}

TEST(Rope, AngleIsRoundedToFloat32) {
  const RopeFrequencies f = {.inv_freq = {0.3f}, .attention_factor = 1};
  float cos, sin;
  RopeRow(f, 100'003, &cos, &sin);
  EXPECT_EQ(cos, static_cast<float>(std::cos(static_cast<double>(100'003.0f * 0.3f))));
  EXPECT_NE(cos, static_cast<float>(std::cos(100'003.0 * 0.3f)));
}

TEST(RopeTable, HoldsTheRowsOfAllPositions) {
  const RopeFrequencies f = ComputeRopeFrequencies(
      {.kind = RopeKind::kYarn, .factor = 4, .original_max_positions = 64}, 16);
  const RopeTable table(f, 33);
  EXPECT_EQ(table.n_positions(), 33);
  for (int position : {0, 1, 32}) {
    float cos[8], sin[8];
    RopeRow(f, position, cos, sin);
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(table.cos(position)[i], cos[i]);
      EXPECT_EQ(table.sin(position)[i], sin[i]);
    }
  }
  EXPECT_EQ(table.cos(0)[0], f.attention_factor);
  EXPECT_EQ(table.sin(0)[0], 0);
}

}  // namespace
}  // namespace gatefold

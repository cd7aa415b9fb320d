#include "gatefold/kernels/gate.h"

#include <cmath>
#include <vector>

#include "gatefold/kernels/kernels_fixture.h"
#include "gmock/gmock.h"

namespace gatefold::kernels {
namespace {

using testing::ElementsAre;

TEST(GateTest, TakesTheLikeliestAndTheLowerIdOfTies) {
  const float logits[] = {1, 3, 3, 2};
  int32_t ids[2];
  float weights[2];
  GateTopK(logits, 1, 4, 2, ids, weights);
  EXPECT_THAT(ids, ElementsAre(1, 2));
  EXPECT_THAT(weights, ElementsAre(0.5f, 0.5f));
}

TEST(GateTest, WeightsAreTheSoftmaxOverTheChosen) {
  const std::vector<float> logits = Random(8, 1);
  int32_t ids[3];
  float weights[3];
  GateTopK(logits.data(), 1, 8, 3, ids, weights);
  double sum = 0;
  for (int32_t id : ids) sum += std::exp(logits[id]);
  for (int k = 0; k < 3; ++k) EXPECT_NEAR(weights[k], std::exp(logits[ids[k]]) / sum, 1e-6);
}

TEST(GateTest, GivesValidIdsForNanAndInfinity) {
  const float logits[] = {NAN, -INFINITY, INFINITY, NAN};
  int32_t ids[3];
  float weights[3];
  GateTopK(logits, 1, 4, 3, ids, weights);
  EXPECT_THAT(ids, ElementsAre(2, 0, 1));
  for (float weight : weights) EXPECT_TRUE(weight >= 0 && weight <= 1);
}

TEST(GateTest, EachRowIsItsOwn) {
  const std::vector<float> logits = Random(7 * 60, 2);
  std::vector<int32_t> ids(7 * 6), ids_alone(6);
  std::vector<float> weights(7 * 6), weights_alone(6);
  GateTopK(logits.data(), 7, 60, 6, ids.data(), weights.data());
  for (int r = 0; r < 7; ++r) {
    GateTopK(&logits[r * 60], 1, 60, 6, ids_alone.data(), weights_alone.data());
    for (int k = 0; k < 6; ++k) {
      EXPECT_EQ(ids[r * 6 + k], ids_alone[k]);
      EXPECT_EQ(weights[r * 6 + k], weights_alone[k]);
    }
  }
}

TEST(GateTest, TakesAllExpertsWhenAsked) {
  const float logits[] = {0, 100, -100};
  int32_t ids[3];
  float weights[3];
  GateTopK(logits, 1, 3, 3, ids, weights);
  EXPECT_THAT(ids, ElementsAre(1, 0, 2));
  EXPECT_FLOAT_EQ(weights[0], 1.0f);
}

TEST(GateTest, AllInstructionSetsGiveTheSameBits) {
  const std::vector<float> logits = Random(5 * 37, 3);
  ExpectSameBitsOnAllIsas([&] {
    std::vector<int32_t> ids(5 * 4);
    std::vector<float> weights(5 * 4);
    GateTopK(logits.data(), 5, 37, 4, ids.data(), weights.data());
    for (int32_t id : ids) weights.push_back(static_cast<float>(id));
    return weights;
  });
}

}  // namespace
}  // namespace gatefold::kernels

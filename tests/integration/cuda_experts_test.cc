// A cluster whose experts are on a CUDA device: near the reference, and the row law among themselves.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "expert-service/expert_backend.h"
#include "gatefold/checkpoint/safetensors.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr char kModel[] = "tests/golden/mixtral/bf16";

// Rows and what lies between the products are rounded to bfloat16 there: 8 bits of mantissa, over 4 layers.
constexpr float kLogitTolerance = 0.05f;

class CudaExpertsTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto weights = ModelWeights::Open(kModel);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const auto backend =
        MakeCudaExpertBackend((*weights)->expert_dtype(), (*weights)->config().d_model);
    if (!backend.ok()) GTEST_SKIP() << "skipped: " << backend.status().message();
  }

  static std::unique_ptr<Shape> Start(const std::vector<std::string>& experts) {
    ShapeOptions options;
    options.kind = ShapeOptions::Kind::kCluster;
    options.backend = "cuda";
    options.experts = experts;
    auto shape = Shape::Start(kModel, options);
    EXPECT_TRUE(shape.ok()) << shape.status();
    return shape.ok() ? *std::move(shape) : nullptr;
  }
};

std::vector<int32_t> Prompt(int seed, int length) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((seed * 131 + i * i * 7 + i * 29) % 512);
  return prompt;
}

TEST_F(CudaExpertsTest, AreNearTheReference) {
  auto file = SafetensorsFile::Open("tests/golden/mixtral/bf16/ref.safetensors");
  ASSERT_TRUE(file.ok());
  auto shape = Start({"0/2", "1/2"});
  ASSERT_NE(shape, nullptr);
  Client client(shape->channel());
  for (const std::string len : {"len17", "len200"}) {
    const SafetensorsTensor* ids = (*file)->Find(len + ".input_ids");
    const SafetensorsTensor* last = (*file)->Find(len + ".last_logits");
    std::vector<int64_t> prompt(ids->size_bytes() / sizeof(int64_t));
    std::memcpy(prompt.data(), ids->data, ids->size_bytes());
    std::vector<float> logits(last->size_bytes() / sizeof(float));
    std::memcpy(logits.data(), last->data, last->size_bytes());
    const auto score = client.ScoreTokens({prompt.begin(), prompt.end()});
    ASSERT_TRUE(score.ok()) << score.status();
    float most = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      most = std::max(most, std::abs(score->last_logits[i] - logits[i]));
    }
    EXPECT_LT(most, kLogitTolerance) << len;
    RecordProperty(len + "_largest_difference", std::to_string(most));
    std::printf("%s: logits differ from the reference by at most %g\n", len.c_str(), most);
  }
}

TEST_F(CudaExpertsTest, KeepTheRowLawOverShardsAndBatches) {
  auto one = Start({"all"});
  auto three = Start({"0/2", "1/2", "all"});
  ASSERT_TRUE(one != nullptr && three != nullptr);
  Client quiet(one->channel());
  const auto tokens = quiet.Generate(Prompt(0, 100), 64);
  const auto score = quiet.ScoreTokens(Prompt(0, 100));
  ASSERT_TRUE(tokens.ok() && score.ok()) << tokens.status() << score.status();
  std::vector<std::thread> others;
  for (int i = 1; i <= 17; ++i) {
    others.emplace_back([&, i] {
      Client client(three->channel());
      for (int round = 0; round < 4; ++round) {
        EXPECT_TRUE(client.Generate(Prompt(i + 100 * round, 7 * i), 10 + 3 * i).ok());
      }
    });
  }
  Client client(three->channel());
  const auto in_a_batch = client.Generate(Prompt(0, 100), 64);
  const auto score_in_a_batch = client.ScoreTokens(Prompt(0, 100));
  for (std::thread& other : others) other.join();
  ASSERT_TRUE(in_a_batch.ok() && score_in_a_batch.ok()) << in_a_batch.status();
  EXPECT_EQ(*in_a_batch, *tokens);
  EXPECT_TRUE(*score_in_a_batch == *score);
}

}  // namespace
}  // namespace gatefold

// A cluster whose experts are on a CUDA device: near the reference, and the row law among
// themselves.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <thread>

#include "expert-service/expert_backend.h"
#include "gatefold/checkpoint/safetensors.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gtest/gtest.h"
#include "tests/gpu/quantised_reference.h"
#include "tests/integration/client.h"
#include "tests/integration/rewritten_experts.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr char kModel[] = "tests/golden/mixtral/bf16";

// Rows and what lies between the products are rounded to bfloat16 there: 8 bits of mantissa, over 4
// layers.
constexpr float kLogitTolerance = 0.05f;

class CudaExpertsTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto weights = ModelWeights::Open(kModel);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const auto backend = MakeCudaExpertBackend(
        {.dtype = (*weights)->expert_dtype(), .d_model = (*weights)->config().d_model});
    if (!backend.ok()) GTEST_SKIP() << "skipped: " << backend.status().message();
  }

  static std::unique_ptr<Shape> Start(const std::vector<std::string>& experts,
                                      const std::string& weights = "checkpoint",
                                      const std::string& model = kModel) {
    ShapeOptions options;
    options.kind = ShapeOptions::Kind::kCluster;
    options.backend = "cuda";
    options.weights = weights;
    options.experts = experts;
    auto shape = Shape::Start(model, options);
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

// The model with its experts' weights quantised and back, in a folder.
absl::Status WriteDequantised(cuda::WeightFormat format, const std::string& to) {
  return CopyWithRewrittenExperts(
      kModel, to, [format](const SafetensorsTensor& tensor, std::vector<char>* bytes) {
        std::vector<uint16_t> values(bytes->size() / 2);
        std::memcpy(values.data(), bytes->data(), bytes->size());
        values = cuda::Dequantised(format, values, tensor.shape[1]);
        std::memcpy(bytes->data(), values.data(), bytes->size());
      });
}

TEST_F(CudaExpertsTest, QuantisedOnesAreTheBFloat16TheyStandFor) {
  const std::vector<int32_t> prompt = Prompt(3, 150);
  auto plain = Start({"all"});
  ASSERT_NE(plain, nullptr);
  const auto unlike = Client(plain->channel()).ScoreTokens(prompt);
  for (const auto& [weights, format] : {std::pair("int8", cuda::WeightFormat::kInt8),
                                        std::pair("int4", cuda::WeightFormat::kInt4)}) {
    SCOPED_TRACE(weights);
    const TempDir folder;
    const absl::Status written = WriteDequantised(format, folder.path());
    ASSERT_TRUE(written.ok()) << written;
    auto quantised = Start({"0/2", "1/2"}, weights);
    auto dequantised = Start({"all"}, "checkpoint", folder.path());
    ASSERT_TRUE(quantised != nullptr && dequantised != nullptr);
    Client one(quantised->channel()), other(dequantised->channel());
    const auto score = one.ScoreTokens(prompt), expected = other.ScoreTokens(prompt);
    ASSERT_TRUE(score.ok() && expected.ok() && unlike.ok()) << score.status() << expected.status();
    EXPECT_TRUE(*score == *expected);
    EXPECT_FALSE(*score == *unlike);
    EXPECT_EQ(*one.Generate(prompt, 40), *other.Generate(prompt, 40));
  }
}

// By how experts are kept.
class CudaExpertWeightsTest : public CudaExpertsTest,
                              public testing::WithParamInterface<const char*> {};

TEST_P(CudaExpertWeightsTest, KeepTheRowLawOverShardsAndBatches) {
  const std::string weights = GetParam();
  auto one = Start({"all"}, weights);
  auto three = Start({"0/2", "1/2", "all"}, weights);
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

INSTANTIATE_TEST_SUITE_P(Formats, CudaExpertWeightsTest,
                         testing::Values("checkpoint", "int8", "int4"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace gatefold

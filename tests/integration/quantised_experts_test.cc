// Models whose experts are quantised when they are loaded: they are the models of the weights they
// stand for, and keep the row law.

#include <signal.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "expert-service/expert_backend.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/rewritten_experts.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

// In float32, which holds exactly what a quantised weight stands for.
constexpr char kModel[] = "tests/golden/mixtral/f32";
constexpr int kOutput = 48;

using Kind = ShapeOptions::Kind;

std::vector<int32_t> Prompt(int seed, int length) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((seed * 131 + i * i * 7 + i * 29) % 512);
  return prompt;
}

// Rows of n weights, quantised and back.
void Dequantise(WeightKind kind, int64_t n, std::vector<float>* weights) {
  for (size_t row = 0; row < weights->size(); row += n) {
    for (int64_t first = 0; first < n; first += kQuantGroup) {
      float x[kQuantGroup] = {};
      float* const at = weights->data() + row + first;
      const int64_t count = std::min<int64_t>(kQuantGroup, n - first);
      std::copy_n(at, count, x);
      const QuantisedGroup group = kind == WeightKind::kInt8 ? Quantise<8>(x) : Quantise<4>(x);
      for (int64_t i = 0; i < count; ++i) at[i] = group.q[i] * BF16ToFloat(group.scale);
    }
  }
}

// The model with its experts' weights quantised and back, in a folder.
absl::Status WriteDequantised(WeightKind kind, const std::string& to) {
  return CopyWithRewrittenExperts(
      kModel, to, [kind](const SafetensorsTensor& tensor, std::vector<char>* bytes) {
        std::vector<float> values(bytes->size() / sizeof(float));
        std::memcpy(values.data(), bytes->data(), bytes->size());
        Dequantise(kind, tensor.shape[1], &values);
        std::memcpy(bytes->data(), values.data(), bytes->size());
      });
}

struct Bits {
  Client::Score score;
  std::vector<int32_t> tokens;
  friend bool operator==(const Bits&, const Bits&) = default;
};

class QuantisedExpertsTest : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Shape> Start(ShapeOptions options, const std::string& model = kModel) {
    auto shape = Shape::Start(model, options);
    EXPECT_TRUE(shape.ok()) << shape.status();
    return shape.ok() ? *std::move(shape) : nullptr;
  }

  static Bits Observe(Shape* shape) {
    Client client(shape->channel());
    Bits bits;
    const auto score = client.ScoreTokens(Prompt(0, 100));
    const auto tokens = client.Generate(Prompt(0, 100), kOutput);
    EXPECT_TRUE(score.ok() && tokens.ok()) << score.status() << tokens.status();
    if (score.ok()) bits.score = *score;
    if (tokens.ok()) bits.tokens = *tokens;
    return bits;
  }
};

TEST_P(QuantisedExpertsTest, AreTheFloatsTheyStandFor) {
  const TempDir folder;
  const absl::Status written = WriteDequantised(*ParseWeightKind(GetParam()), folder.path());
  ASSERT_TRUE(written.ok()) << written;
  auto quantised = Start({.weights = GetParam()});
  auto floats = Start({}, folder.path());
  auto plain = Start({});
  ASSERT_TRUE(quantised != nullptr && floats != nullptr && plain != nullptr);
  const Bits bits = Observe(quantised.get());
  EXPECT_TRUE(bits == Observe(floats.get()));
  EXPECT_FALSE(bits.score == Observe(plain.get()).score);
}

// One process and a cluster, alone and beside others, and after the death of a shard.
TEST_P(QuantisedExpertsTest, KeepTheRowLaw) {
  auto local = Start({.weights = GetParam()});
  ASSERT_NE(local, nullptr);
  const Bits quiet = Observe(local.get());
  for (const char* isa : {"auto", "scalar"}) {
    auto one =
        Start({.kind = Kind::kCluster, .experts = {"all"}, .isa = isa, .weights = GetParam()});
    ASSERT_NE(one, nullptr);
    EXPECT_TRUE(Observe(one.get()) == quiet) << isa;
  }

  auto three =
      Start({.kind = Kind::kCluster, .experts = {"0/2", "1/2", "all"}, .weights = GetParam()});
  ASSERT_NE(three, nullptr);
  const auto observe_in_a_batch = [&] {
    std::vector<std::thread> others;
    for (int i = 1; i <= 17; ++i) {
      others.emplace_back([&, i] {
        Client client(three->channel());
        EXPECT_TRUE(client.Generate(Prompt(i, 7 * i), 10 + 3 * i).ok());
      });
    }
    const Bits bits = Observe(three.get());
    for (std::thread& other : others) other.join();
    return bits;
  };
  EXPECT_TRUE(observe_in_a_batch() == quiet);
  three->expert(0)->Signal(SIGKILL);
  EXPECT_TRUE(observe_in_a_batch() == quiet);
}

// An attention-service outlives the change of its cluster's experts to another kind of weights.
TEST_P(QuantisedExpertsTest, ShareNoCachedPromptWithTheCheckpoints) {
  auto before = Start({.kind = Kind::kCluster});
  auto alone = Start({.weights = GetParam()});
  ASSERT_TRUE(before != nullptr && alone != nullptr);
  auto after = Start({.kind = Kind::kCluster,
                      .n_attention = 0,
                      .attention_addresses = {before->attention_address()},
                      .weights = GetParam()});
  ASSERT_NE(after, nullptr);
  const auto generate = [](Shape* shape, int n_cached) {
    Client client(shape->channel());
    const auto tokens = client.Generate(Prompt(0, 100), kOutput);
    EXPECT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(client.n_cached_tokens(), n_cached);
    return tokens.value_or(std::vector<int32_t>());
  };
  generate(before.get(), 0);
  generate(before.get(), 96);  // six blocks
  const std::vector<int32_t> quiet = generate(alone.get(), 0);
  EXPECT_EQ(generate(after.get(), 0), quiet);
  EXPECT_EQ(generate(after.get(), 96), quiet);
}

INSTANTIATE_TEST_SUITE_P(Weights, QuantisedExpertsTest, testing::Values("int8", "int4"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace gatefold

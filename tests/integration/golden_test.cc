// What every shape computes, against references from Hugging Face transformers (tests/golden).

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/checkpoint/safetensors.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr float kLogitTolerance = 2e-4f;  // of the oracle: float32 sums in another order
constexpr float kClearMargin = 1e-3f;     // below it argmax may differ

class Reference {
 public:
  explicit Reference(const std::string& path) {
    auto file = SafetensorsFile::Open(path);
    if (file.ok()) file_ = *std::move(file);
  }
  bool ok() const { return file_ != nullptr; }

  template <typename T>
  std::vector<T> Get(const std::string& name) const {
    const SafetensorsTensor* tensor = file_->Find(name);
    if (tensor == nullptr) return {};
    std::vector<T> values(tensor->size_bytes() / sizeof(T));
    std::memcpy(values.data(), tensor->data, tensor->size_bytes());
    return values;
  }

 private:
  std::unique_ptr<SafetensorsFile> file_;
};

struct Case {
  std::string folder;
  ShapeOptions::Kind shape;
};

class GoldenTest : public testing::TestWithParam<Case> {};

void ExpectScore(const Client::Score& score, const Reference& reference, const std::string& len) {
  const auto logits = reference.Get<float>(len + ".last_logits");
  ASSERT_EQ(score.last_logits.size(), logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    ASSERT_NEAR(score.last_logits[i], logits[i], kLogitTolerance) << len << " logit " << i;
  }
  const auto argmax = reference.Get<int64_t>(len + ".argmax");
  const auto margin = reference.Get<float>(len + ".margin");
  ASSERT_EQ(score.argmax.size(), argmax.size());
  for (size_t i = 0; i < argmax.size(); ++i) {
    if (margin[i] > kClearMargin) {
      EXPECT_EQ(score.argmax[i], argmax[i]) << len << " position " << i;
    }
  }
}

void ExpectRouting(const inference::v1::RoutingTrace& routing, const Reference& reference,
                   const std::string& len) {
  const size_t k = routing.top_k();
  const size_t n_layers = routing.layer_ids_size();
  std::vector<uint16_t> experts(routing.expert_ids().size() / 2);
  std::memcpy(experts.data(), routing.expert_ids().data(), routing.expert_ids().size());
  std::vector<float> weights(routing.gate_weights().size() / 4);
  std::memcpy(weights.data(), routing.gate_weights().data(), routing.gate_weights().size());
  ASSERT_EQ(experts.size(), routing.n_tokens() * n_layers * k);
  for (size_t l = 0; l < n_layers; ++l) {
    const std::string name = absl::StrCat(len, ".layer", routing.layer_ids(l));
    const auto want_experts = reference.Get<int64_t>(name + ".topk_idx");
    const auto want_weights = reference.Get<float>(name + ".topk_weight");
    ASSERT_EQ(want_experts.size(), routing.n_tokens() * k) << name;
    for (size_t token = 0; token < routing.n_tokens(); ++token) {
      for (size_t i = 0; i < k; ++i) {
        const size_t at = (token * n_layers + l) * k + i;
        EXPECT_EQ(experts[at], want_experts[token * k + i]) << name << " token " << token;
        EXPECT_NEAR(weights[at], want_weights[token * k + i], 1e-4) << name << " token " << token;
      }
    }
  }
}

TEST_P(GoldenTest, MatchesTheReference) {
  const std::string dir = absl::StrCat("tests/golden/", GetParam().folder);
  // mixtral_sharded holds the same weights as mixtral/bf16.
  std::string ref_dir = dir;
  if (!std::filesystem::exists(dir + "/ref.safetensors")) ref_dir = "tests/golden/mixtral/bf16";
  const Reference reference(ref_dir + "/ref.safetensors");
  ASSERT_TRUE(reference.ok());
  ShapeOptions options;
  options.kind = GetParam().shape;
  auto shape = Shape::Start(dir, options);
  ASSERT_TRUE(shape.ok()) << shape.status();
  Client client((*shape)->channel());
  for (const std::string len : {"len1", "len17", "len200"}) {
    const auto ids = reference.Get<int64_t>(len + ".input_ids");
    const std::vector<int32_t> prompt(ids.begin(), ids.end());
    auto score = client.ScoreTokens(prompt);
    ASSERT_TRUE(score.ok()) << score.status();
    ExpectScore(*score, reference, len);
    if (dir.find("mixtral") != std::string::npos) {
      EXPECT_EQ(score->routing.n_tokens(), prompt.size());
      ExpectRouting(score->routing, reference, len);
    } else {
      EXPECT_EQ(score->routing.layer_ids_size(), 0);
    }
    const auto greedy = reference.Get<int64_t>(len + ".greedy");
    auto tokens = client.Generate(prompt, static_cast<int>(greedy.size()));
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    EXPECT_EQ(*tokens, std::vector<int32_t>(greedy.begin(), greedy.end())) << len;
  }
}

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const char* folder : {"llama/f32", "llama/bf16", "llama3/f32", "llama3/bf16", "mixtral/f32",
                             "mixtral/bf16", "mixtral_sharded/bf16", "mistral_window",
                             "mixtral_window", "mixtral_tied", "llama_biases", "llama_yarn"}) {
    for (auto shape : {ShapeOptions::Kind::kLocal, ShapeOptions::Kind::kColocated,
                       ShapeOptions::Kind::kCluster}) {
      cases.push_back({folder, shape});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Golden, GoldenTest, testing::ValuesIn(Cases()), [](const auto& info) {
  std::string name = absl::StrCat(info.param.folder, "_", ShapeName(info.param.shape));
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
});

}  // namespace
}  // namespace gatefold

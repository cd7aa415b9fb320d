#include "cli/plan/architecture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>

namespace gatefold::cli {
namespace {

using testing::HasSubstr;

std::string Example(const std::string& name) {
  std::ifstream file("examples/configs/" + name);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

Architecture Read(const std::string& json) {
  const absl::StatusOr<Architecture> read = ReadArchitecture(json, 8);
  EXPECT_TRUE(read.ok()) << read.status();
  return read.value_or(Architecture());
}

absl::Status Refusal(const std::string& json) { return ReadArchitecture(json, 8).status(); }

WeightFormat Format(const std::string& name) { return *FindWeightFormat(name); }

// By hand, per layer: q_a 7168*1536, q_b 1536*128*192, kv_a 7168*576, kv_b 512*128*256 and
// o 16384*7168.
TEST(ArchitectureTest, CountsDeepSeekV3) {
  const Architecture v3 = Read(Example("deepseek-v3.json"));
  EXPECT_NEAR(static_cast<double>(v3.n_params()), 671e9, 0.01 * 671e9);
  EXPECT_NEAR(static_cast<double>(v3.n_active_params()), 37e9, 0.02 * 37e9);  // as published
  EXPECT_EQ(v3.attention_params,
            int64_t{61} * (11010048 + 37748736 + 4128768 + 16777216 + 117440512));
  EXPECT_EQ(v3.n_routed_layers, 58);
  EXPECT_EQ(v3.n_experts, 256);
  EXPECT_EQ(v3.expert_params, int64_t{3} * 7168 * 2048);
  EXPECT_EQ(v3.shared_params, 58 * v3.expert_params);
  EXPECT_EQ(v3.dense_params, int64_t{3} * 3 * 7168 * 18432);
  EXPECT_EQ(v3.kv_floats, 512 + 64);
  EXPECT_EQ(v3.stored_as, "fp8");
}

TEST(ArchitectureTest, CountsMixtral8x22B) {
  const Architecture mixtral = Read(Example("mixtral-8x22b.json"));
  EXPECT_NEAR(static_cast<double>(mixtral.n_params()), 141e9, 0.01 * 141e9);
  EXPECT_NEAR(static_cast<double>(mixtral.n_active_params()), 39e9, 0.01 * 39e9);
  EXPECT_EQ(mixtral.expert_params, int64_t{3} * 6144 * 16384);
  EXPECT_EQ(mixtral.kv_floats, 2 * 8 * 128);
  EXPECT_EQ(mixtral.stored_as, "bfloat16");
}

TEST(ArchitectureTest, CountsTheInventedOne) {
  EXPECT_NEAR(static_cast<double>(Read(Example("invented-1.8t.json")).n_params()), 1.8e12, 1e10);
}

TEST(ArchitectureTest, AgreesWithWhatTheServicesReadOfTheEmbeddedModel) {
  std::ifstream file("models/gatefold-tiny-moe/config.json");
  std::stringstream text;
  text << file.rdbuf();
  const Architecture tiny = Read(text.str());
  EXPECT_EQ(tiny.n_experts, 8);
  EXPECT_EQ(tiny.top_k, 2);
  // The file has 10.6 M parameters, of which some thousand are norms.
  std::ifstream weights("models/gatefold-tiny-moe/model.safetensors",
                        std::ios::ate | std::ios::binary);
  const double in_file = static_cast<double>(weights.tellg()) / 2;
  EXPECT_NEAR(static_cast<double>(tiny.n_params()), in_file, 0.01 * in_file);
}

TEST(ArchitectureTest, LaysOutTheLayersOfEachFamily) {
  // Every second layer, and not layer 3.
  const Architecture qwen = Read(R"({"model_type": "qwen2_moe", "hidden_size": 64,
      "num_hidden_layers": 6, "vocab_size": 100, "num_attention_heads": 4, "num_experts": 10,
      "num_experts_per_tok": 2, "moe_intermediate_size": 8, "intermediate_size": 32,
      "shared_expert_intermediate_size": 16, "decoder_sparse_step": 2, "mlp_only_layers": [3]})");
  EXPECT_EQ(qwen.n_routed_layers, 2);  // 1 and 5
  EXPECT_EQ(qwen.shared_params, 2 * 3 * 64 * 16);
  EXPECT_EQ(qwen.dense_params, 4 * 3 * 64 * 32);
  const Architecture llama = Read(R"({"model_type": "llama", "hidden_size": 64,
      "num_hidden_layers": 3, "vocab_size": 100, "num_attention_heads": 4,
      "num_key_value_heads": 2, "intermediate_size": 32, "tie_word_embeddings": true})");
  EXPECT_EQ(llama.n_experts, 8);
  EXPECT_EQ(llama.top_k, 8);
  EXPECT_EQ(llama.expert_params, 3 * 64 * 32 / 8);
  EXPECT_EQ(llama.kv_floats, 2 * 2 * 16);
  EXPECT_EQ(llama.n_params(), 3 * (3 * 64 * 32 + 2 * 64 * 64 + 2 * 64 * 32) + 100 * 64);
}

TEST(ArchitectureTest, MixtralHasEightKeysAndValuesWhereNothingIsSaid) {
  const auto kv_floats = [](const std::string& family) {
    return Read(absl::StrCat(R"({"model_type": ")", family, R"(", "hidden_size": 64,
        "num_hidden_layers": 3, "vocab_size": 100, "num_attention_heads": 16, "num_local_experts": 8,
        "num_experts_per_tok": 2, "intermediate_size": 32})"))
        .kv_floats;
  };
  EXPECT_EQ(kv_floats("mixtral"), 2 * 8 * 4);
  EXPECT_EQ(kv_floats("llama"), 2 * 16 * 4);
}

TEST(ArchitectureTest, CountsBytesByFormat) {
  const Architecture v3 = Read(Example("deepseek-v3.json"));
  EXPECT_EQ(v3.ExpertBytes(Format("bfloat16")), 2.0 * 3 * 7168 * 2048);
  EXPECT_NEAR(v3.ExpertBytes(Format("fp8")), 44.05e6, 0.01e6);
  // The embedding and the LM head of a quantised model stay bfloat16, and only one is read whole.
  const double matrices =
      static_cast<double>(v3.attention_params + v3.shared_params + v3.dense_params) *
      (1 + 4.0 / 16384);
  const double vocabulary = 2.0 * 129280 * 7168;
  EXPECT_NEAR(v3.AttentionBytesRead(Format("fp8")), matrices + vocabulary, 1);
  EXPECT_NEAR(v3.AttentionBytes(Format("fp8")), matrices + 2 * vocabulary, 1);
}

TEST(ArchitectureTest, NamesWhatIsWrong) {
  EXPECT_THAT(Refusal("{").message(), HasSubstr("config.json"));
  EXPECT_THAT(Refusal("[]").message(), HasSubstr("not a JSON object"));
  EXPECT_TRUE(absl::IsUnimplemented(Refusal(R"({"model_type": "gpt2"})")));
  EXPECT_THAT(Refusal(R"({"model_type": "gpt2"})").message(), HasSubstr("deepseek_v3"));
  EXPECT_THAT(Refusal(R"({"model_type": "mixtral"})").message(),
              HasSubstr("hidden_size is missing"));
  EXPECT_THAT(Refusal(R"({"model_type": "mixtral", "hidden_size": 1e12})").message(),
              HasSubstr("hidden_size is 1000000000000.0, must be"));
  EXPECT_THAT(Refusal(R"({"model_type": "mixtral", "hidden_size": 64, "num_hidden_layers": 2,
      "vocab_size": 100, "num_attention_heads": 4, "intermediate_size": 8,
      "num_local_experts": 8, "num_experts_per_tok": 9})")
                  .message(),
              HasSubstr("num_experts_per_tok is 9, must be a whole number of 1 to 8"));
}

}  // namespace
}  // namespace gatefold::cli

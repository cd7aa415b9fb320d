#include "gatefold/model/model_config.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/base/small_file.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace gatefold {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;

json Llama() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", 512},
          {"hidden_size", 64},
          {"num_hidden_layers", 4},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 2},
          {"intermediate_size", 176},
          {"rope_theta", 50000.0}};
}

json Mixtral() {
  json object = Llama();
  object["architectures"] = {"MixtralForCausalLM"};
  object["model_type"] = "mixtral";
  object["num_local_experts"] = 8;
  object["num_experts_per_tok"] = 2;
  return object;
}

json Mistral() {
  json object = Llama();
  object["architectures"] = {"MistralForCausalLM"};
  object["model_type"] = "mistral";
  return object;
}

json With(json object, const json& changes) {
  object.update(changes);
  return object;
}

json Without(json object, const char* key) {
  object.erase(key);
  return object;
}

absl::StatusOr<ModelConfig> Parse(const json& object, const json& generation = nullptr,
                                  const ModelLoadOptions& options = {}) {
  return ParseModelConfig(object.dump(), generation.is_null() ? "" : generation.dump(), options);
}

void ExpectRefusal(const json& object, absl::StatusCode code, const std::string& message) {
  const auto config = Parse(object);
  EXPECT_EQ(config.status().code(), code) << object.dump();
  EXPECT_THAT(std::string(config.status().message()), HasSubstr(message)) << object.dump();
}

void ExpectInvalid(const json& object, const std::string& message) {
  ExpectRefusal(object, absl::StatusCode::kInvalidArgument, message);
}

void ExpectUnsupported(const json& object, const std::string& message) {
  ExpectRefusal(object, absl::StatusCode::kUnimplemented, message);
}

std::string Golden(const std::string& name) {
  return *ReadSmallFile("tests/golden/" + name, 1 << 20);
}

TEST(ModelConfig, ReadsADenseModel) {
  const auto config = Parse(Llama());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->family, "llama");
  EXPECT_FALSE(config->sparse());
  EXPECT_EQ(config->gate, GateKind::kAll);
  EXPECT_EQ(config->head_dim, 8);
  EXPECT_EQ(config->d_ff, 176);
  EXPECT_EQ(config->n_slices, 8);
  EXPECT_EQ(config->experts_per_layer(), 8);
  EXPECT_EQ(config->experts_per_row(), 8);
  EXPECT_EQ(config->rope.theta, 50000);
  EXPECT_EQ(config->rope.kind, RopeKind::kDefault);
  EXPECT_EQ(config->norm_eps, 1e-6);
  EXPECT_EQ(config->max_positions, 2048);
}

TEST(ModelConfig, ReadsASparseModel) {
  const auto config = Parse(Mixtral());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->sparse());
  EXPECT_EQ(config->gate, GateKind::kSoftmaxTopK);
  EXPECT_EQ(config->n_slices, 0);
  EXPECT_EQ(config->experts_per_layer(), 8);
  EXPECT_EQ(config->experts_per_row(), 2);
  EXPECT_EQ(config->norm_eps, 1e-5);
  EXPECT_EQ(Parse(Without(Mixtral(), "rope_theta"))->rope.theta, 1e6);
}

TEST(ModelConfig, BothSpellingsOfGoldenModelsAreEqual) {
  for (const std::string family : {"llama", "llama3", "mixtral"}) {
    const auto old_spelling = ParseModelConfig(Golden(family + "/f32/config.json"), "");
    const auto new_spelling = ParseModelConfig(Golden(family + "/config.v5.json"), "");
    ASSERT_TRUE(old_spelling.ok()) << old_spelling.status();
    ASSERT_TRUE(new_spelling.ok()) << new_spelling.status();
    EXPECT_EQ(ConfigFingerprint(*old_spelling), ConfigFingerprint(*new_spelling)) << family;
    EXPECT_EQ(old_spelling->eos_token_ids, new_spelling->eos_token_ids);
  }
}

TEST(ModelConfig, HeadDimMayDifferFromTheQuotient) {
  const auto config = Parse(With(Mistral(), {{"head_dim", 24}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->q_width(), 192);
  EXPECT_EQ(config->kv_width(), 48);
  EXPECT_EQ(Parse(With(Mistral(), {{"head_dim", nullptr}}))->head_dim, 8);
}

TEST(ModelConfig, KeyValueHeadsDefaultToAllHeads) {
  EXPECT_EQ(Parse(Without(Llama(), "num_key_value_heads"))->n_kv_heads, 8);
  // What transformers takes for those two is a number; null is as many as query heads.
  const json wide = {{"num_attention_heads", 16}, {"head_dim", 4}};
  const auto kv_heads = [](const json& config) { return Parse(config)->n_kv_heads; };
  EXPECT_EQ(kv_heads(With(Without(Llama(), "num_key_value_heads"), wide)), 16);
  EXPECT_EQ(kv_heads(With(Without(Mixtral(), "num_key_value_heads"), wide)), 8);
  EXPECT_EQ(kv_heads(With(With(Mixtral(), wide), {{"num_key_value_heads", nullptr}})), 16);
}

TEST(ModelConfig, SlidingWindowOfMistralAndMixtral) {
  EXPECT_EQ(Parse(With(Mistral(), {{"sliding_window", 24}}))->sliding_window, 24);
  EXPECT_EQ(Parse(With(Mixtral(), {{"sliding_window", 24}}))->sliding_window, 24);
  EXPECT_EQ(Parse(With(Mistral(), {{"sliding_window", nullptr}}))->sliding_window, 0);
  // Left out is not null: transformers reads a number for one of the two families.
  EXPECT_EQ(Parse(Mistral())->sliding_window, 4096);
  EXPECT_EQ(Parse(Mixtral())->sliding_window, 0);
  ExpectUnsupported(With(Llama(), {{"sliding_window", 24}}), "sliding_window in a llama model");
  ExpectInvalid(With(Mistral(), {{"sliding_window", 0}}), "sliding_window is 0");
  ExpectInvalid(With(Mistral(), {{"sliding_window", "24"}}), "sliding_window is \"24\", not a");
}

TEST(ModelConfig, LayerTypesMustAllAgreeWithTheWindow) {
  const json full = {{"layer_types", {"full_attention", "full_attention"}}};
  const json mixed = {{"layer_types", {"full_attention", "sliding_attention"}}};
  EXPECT_TRUE(Parse(With(With(Mistral(), full), {{"sliding_window", nullptr}})).ok());
  ExpectUnsupported(With(Mistral(), full), "other than \"sliding_attention\"");
  ExpectUnsupported(With(Mistral(), mixed), "layer_types");
  ExpectUnsupported(With(With(Mistral(), full), {{"sliding_window", 24}}), "layer_types");
}

TEST(ModelConfig, BiasesBelongToLlama) {
  const auto config = Parse(With(Llama(), {{"attention_bias", true}, {"mlp_bias", true}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_TRUE(config->attention_bias);
  EXPECT_TRUE(config->mlp_bias);
  ExpectUnsupported(With(Mistral(), {{"attention_bias", true}}), "attention_bias");
  ExpectUnsupported(With(Mixtral(), {{"mlp_bias", true}}), "mlp_bias");
}

TEST(ModelConfig, RefusesUnsupportedFeaturesByName) {
  ExpectUnsupported(With(Llama(), {{"model_type", "mamba"}}), "model_type \"mamba\"");
  ExpectUnsupported(With(Llama(), {{"architectures", {"LlamaForSequenceClassification"}}}),
                    "LlamaForSequenceClassification");
  ExpectUnsupported(With(Llama(), {{"hidden_act", "gelu"}}), "hidden_act \"gelu\"");
  ExpectUnsupported(With(Llama(), {{"quantization_config", {{"quant_method", "gptq"}}}}),
                    "quantization_config");
  ExpectUnsupported(With(Llama(), {{"partial_rotary_factor", 0.5}}), "partial_rotary_factor");
  ExpectUnsupported(With(Llama(), {{"final_logit_softcapping", 30.0}}), "final_logit_softcapping");
  for (const json& value : {json(false), json(nullptr)}) {
    ExpectUnsupported(With(Llama(), {{"is_causal", value}}), "is_causal false");
  }
  ExpectUnsupported(With(Llama(), {{"per_layer_config", {{"1", {{"rms_norm_eps", 0.1}}}}}}),
                    "per_layer_config");
  ExpectUnsupported(With(Llama(), {{"transformers_weights", "other.safetensors"}}),
                    "transformers_weights");
  EXPECT_TRUE(Parse(With(Llama(), {{"hidden_act", "swish"},
                                   {"is_causal", true},
                                   {"partial_rotary_factor", 1.0},
                                   {"quantization_config", nullptr}}))
                  .ok());
}

TEST(ModelConfig, RefusesMissingNumbers) {
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "num_local_experts", "num_experts_per_tok"}) {
    ExpectInvalid(Without(Mixtral(), key), absl::StrCat(key, " is missing"));
  }
  ExpectInvalid(Without(Llama(), "model_type"), "model_type is missing");
}

TEST(ModelConfig, RefusesNumbersOutOfBounds) {
  for (const char* key :
       {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "intermediate_size", "num_local_experts", "num_experts_per_tok",
        "max_position_embeddings", "head_dim", "sliding_window"}) {
    for (const json& value :
         {json(0), json(-1), json(INT64_MIN), json(int64_t{1} << 31), json(INT64_MAX),
          json(UINT64_MAX), json(2.0), json("8"), json(true), json::array({8}), json::object()}) {
      ExpectInvalid(With(Mixtral(), {{key, value}}), absl::StrCat(key, " is "));
    }
  }
}

TEST(ModelConfig, RefusesRealNumbersOutOfBounds) {
  for (const json& value : {json(0), json(-1e-5), json(1e300), json("1e-5"), json(false)}) {
    ExpectInvalid(With(Llama(), {{"rms_norm_eps", value}}), "rms_norm_eps is ");
    ExpectInvalid(With(Llama(), {{"rope_theta", value}}), "rope_theta is ");
  }
  EXPECT_TRUE(Parse(With(Llama(), {{"rope_theta", 1000000}})).ok());  // an integer is a number
}

TEST(ModelConfig, RefusesNumbersThatJsonDoesNotHave) {
  for (const char* number : {"NaN", "Infinity", "-Infinity", "1e999"}) {
    const std::string text = absl::StrCat(R"({"model_type":"llama","rms_norm_eps":)", number, "}");
    EXPECT_EQ(ParseModelConfig(text, "").status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(ModelConfig, RefusesInconsistentNumbers) {
  ExpectInvalid(With(Llama(), {{"num_key_value_heads", 3}}), "num_attention_heads 8");
  ExpectInvalid(With(Llama(), {{"num_key_value_heads", 16}}), "num_key_value_heads 16");
  ExpectInvalid(With(Llama(), {{"hidden_size", 60}}), "hidden_size 60");
  ExpectInvalid(With(Llama(), {{"hidden_size", 24}}), "head_dim 3");
  ExpectInvalid(With(Llama(), {{"head_dim", 7}}), "head_dim 7");
  ExpectInvalid(With(Mixtral(), {{"num_experts_per_tok", 9}}), "num_experts_per_tok 9");
  ExpectInvalid(With(Llama(), {{"bos_token_id", 512}}), "bos_token_id 512");
  ExpectInvalid(With(Llama(), {{"eos_token_id", {2, 512}}}), "eos_token_id 512");
}

TEST(ModelConfig, RefusesWhatIsNotAConfig) {
  for (const char* text : {"", "[]", "null", "3", "{\"model_type\":3}", "{\"a\":1,\"a\":2}"}) {
    EXPECT_EQ(ParseModelConfig(text, "").status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
  ExpectInvalid(With(Llama(), {{"architectures", "LlamaForCausalLM"}}), "architectures");
  ExpectInvalid(With(Llama(), {{"architectures", json::array({3})}}), "architectures");
  ExpectInvalid(With(Llama(), {{"tie_word_embeddings", 1}}), "tie_word_embeddings is 1");
}

TEST(ModelConfig, SlicesMustFitTheMlp) {
  EXPECT_EQ(Parse(Llama(), nullptr, {.n_slices = 176})->n_slices, 176);
  for (int n_slices : {0, -1, 177}) {
    const auto config = Parse(Llama(), nullptr, {.n_slices = n_slices});
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(config.status().message()), HasSubstr("1 to 176"));
  }
  EXPECT_TRUE(Parse(Mixtral(), nullptr, {.n_slices = 0}).ok());  // has no meaning there
}

TEST(ModelConfig, EosOfGenerationConfigHasPrecedence) {
  EXPECT_THAT(Parse(Llama())->eos_token_ids, ElementsAre(2));
  EXPECT_THAT(Parse(With(Llama(), {{"eos_token_id", {9, 5, 9}}}))->eos_token_ids,
              ElementsAre(5, 9));
  EXPECT_THAT(Parse(With(Llama(), {{"eos_token_id", nullptr}}))->eos_token_ids, IsEmpty());
  EXPECT_THAT(
      Parse(With(Llama(), {{"eos_token_id", 9}}), {{"eos_token_id", {7, 3}}})->eos_token_ids,
      ElementsAre(3, 7));
  EXPECT_THAT(
      Parse(With(Llama(), {{"eos_token_id", 9}}), {{"eos_token_id", nullptr}})->eos_token_ids,
      ElementsAre(9));
}

TEST(ModelConfig, BosIsOneUnlessTheFileSaysOtherwise) {
  EXPECT_THAT(Parse(Llama())->bos_token_id, Optional(1));
  EXPECT_THAT(Parse(With(Llama(), {{"bos_token_id", 7}}))->bos_token_id, Optional(7));
  EXPECT_EQ(Parse(With(Llama(), {{"bos_token_id", nullptr}}))->bos_token_id, std::nullopt);
}

TEST(ModelConfig, ReadsSamplingDefaults) {
  const auto config =
      Parse(Llama(), {{"do_sample", true}, {"temperature", 0.6}, {"top_p", 0.9}, {"top_k", 50}});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->generation.do_sample, Optional(true));
  EXPECT_THAT(config->generation.temperature, Optional(0.6));
  EXPECT_THAT(config->generation.top_p, Optional(0.9));
  EXPECT_THAT(config->generation.top_k, Optional(50));
  EXPECT_EQ(Parse(Llama())->generation.temperature, std::nullopt);
  EXPECT_EQ(Parse(Llama())->generation.repetition_penalty, std::nullopt);
  const auto others = Parse(Llama(), {{"min_p", 0.05}, {"repetition_penalty", 1.1}});
  EXPECT_THAT(others->generation.min_p, Optional(0.05));
  EXPECT_THAT(others->generation.repetition_penalty, Optional(1.1));
  EXPECT_EQ(Parse(Llama(), {{"temperature", -1}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Parse(Llama(), json::array()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ModelConfig, RefusesDefaultsThatItCannotFollow) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, json>>{{"num_beams", 4},
                                                 {"no_repeat_ngram_size", 3},
                                                 {"suppress_tokens", {1, 2}},
                                                 {"forced_bos_token_id", 7},
                                                 {"typical_p", 0.9},
                                                 {"min_new_tokens", 5},
                                                 {"bad_words_ids", {{3}}}}) {
    const auto config = Parse(Llama(), {{key, value}});
    EXPECT_EQ(config.status().code(), absl::StatusCode::kUnimplemented) << key;
    EXPECT_THAT(std::string(config.status().message()),
                HasSubstr(key + " is not supported; without that line the model is served"));
  }
  const json idle = {{"num_beams", 1},
                     {"no_repeat_ngram_size", 0},
                     {"suppress_tokens", json::array()},
                     {"forced_bos_token_id", nullptr},
                     {"typical_p", 1.0},
                     {"min_length", 0},
                     {"max_new_tokens", 20}};
  EXPECT_TRUE(Parse(Llama(), idle).ok());
}

TEST(RopeConfig, OldDictionaryReplacesTheNewOne) {
  const auto config = Parse(
      With(Llama(),
           {{"rope_scaling", {{"type", "linear"}, {"factor", 4.0}}},
            {"rope_parameters", {{"rope_type", "yarn"}, {"factor", 2.0}, {"rope_theta", 7.0}}}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.kind, RopeKind::kLinear);
  EXPECT_EQ(config->rope.factor, 4);
  EXPECT_EQ(config->rope.theta, 50000);
}

TEST(RopeConfig, AnEmptyOldDictionaryReplacesNothing) {
  const auto config =
      Parse(With(Llama(), {{"rope_scaling", json::object()},
                           {"rope_parameters", {{"rope_type", "linear"}, {"factor", 2.0}}}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->rope.kind, RopeKind::kLinear);
  EXPECT_EQ(config->rope.factor, 2);
}

TEST(RopeConfig, ThetaInsideTheDictionaryWins) {
  const json dict = {{"rope_type", "default"}, {"rope_theta", 123.0}};
  EXPECT_EQ(Parse(With(Llama(), {{"rope_parameters", dict}}))->rope.theta, 123);
  EXPECT_EQ(Parse(Without(Llama(), "rope_theta"))->rope.theta, 10000);
}

TEST(RopeConfig, OriginalPositionsFromBesideInsideOrMax) {
  const json dict = {{"rope_type", "yarn"}, {"factor", 2.0}};
  const json base = With(Llama(), {{"rope_scaling", dict}, {"max_position_embeddings", 300}});
  EXPECT_EQ(Parse(base)->rope.original_max_positions, 300);
  json inside = base;
  inside["rope_scaling"]["original_max_position_embeddings"] = 200;
  EXPECT_EQ(Parse(inside)->rope.original_max_positions, 200);
  inside["original_max_position_embeddings"] = 100;
  EXPECT_EQ(Parse(inside)->rope.original_max_positions, 100);
}

TEST(RopeConfig, YarnFactorDefaultsToTheStretch) {
  json object = With(Llama(), {{"max_position_embeddings", 400}});
  object["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", nullptr}, {"original_max_position_embeddings", 100}};
  EXPECT_EQ(Parse(object)->rope.factor, 4);
  object["rope_scaling"]["original_max_position_embeddings"] = 800;
  ExpectInvalid(object, "max_position_embeddings 400");
}

TEST(RopeConfig, YarnTruncatesUnlessToldOtherwise) {
  const auto truncates = [](const json& more) {
    const json dict = With({{"rope_type", "yarn"}, {"factor", 2.0}}, more);
    return Parse(With(Llama(), {{"rope_scaling", dict}}))->rope.truncate;
  };
  EXPECT_TRUE(truncates(json::object()));
  EXPECT_TRUE(truncates({{"truncate", true}}));
  EXPECT_FALSE(truncates({{"truncate", false}}));
  EXPECT_FALSE(truncates({{"truncate", nullptr}}));
}

TEST(RopeConfig, RefusesUnsupportedAndIncompleteScaling) {
  const auto scaled = [](const json& dict) { return With(Llama(), {{"rope_scaling", dict}}); };
  for (const char* type : {"dynamic", "longrope", "su", "mrope", ""}) {
    ExpectUnsupported(scaled({{"rope_type", type}, {"factor", 2.0}}), type);
    ExpectUnsupported(scaled({{"type", type}}), absl::StrCat("rope_type \"", type, "\""));
  }
  ExpectInvalid(scaled({{"type", "linear"}}), "factor is missing");
  ExpectInvalid(scaled({{"factor", 2.0}}), "rope_type is missing");
  for (const std::string layers : {"full_attention", "sliding_attention"}) {
    const json one = {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 55.0}};
    ExpectUnsupported(scaled({{layers, one}}), "a dictionary for " + layers);
  }
  ExpectInvalid(scaled({{"type", "linear"}, {"factor", 0.5}}), "factor is 0.5");
  ExpectInvalid(scaled({{"type", 3}}), "type is 3");
  ExpectInvalid(scaled("linear"), "not a JSON object");
  ExpectInvalid(scaled({{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 1.0}}),
                "high_freq_factor is missing");
  ExpectInvalid(scaled({{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 4.0},
                        {"high_freq_factor", 4.0}}),
                "must exceed");
  ExpectInvalid(scaled({{"rope_type", "yarn"}, {"factor", 8.0}, {"beta_fast", 0.5}}), "beta_fast");
  ExpectUnsupported(scaled({{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
                    "partial_rotary_factor");
}

TEST(ConfigFingerprint, SeesWhatChangesTheNumbersOnly) {
  const auto print = [](const json& object, int n_slices = 8) {
    return ConfigFingerprint(*Parse(object, nullptr, {.n_slices = n_slices}));
  };
  const std::string base = print(Llama());
  EXPECT_EQ(base.size(), 32u);
  EXPECT_EQ(base, print(With(Llama(), {{"eos_token_id", 5}, {"use_cache", false}})));
  EXPECT_NE(base, print(Llama(), 4));
  EXPECT_NE(base, print(With(Llama(), {{"rms_norm_eps", 1e-5}})));
  EXPECT_NE(base, print(With(Llama(), {{"rope_theta", 50001.0}})));
  EXPECT_NE(base, print(With(Llama(), {{"attention_bias", true}})));
  EXPECT_NE(base, print(With(Llama(), {{"num_key_value_heads", 4}})));
  EXPECT_NE(print(Mistral()), print(With(Mistral(), {{"sliding_window", 24}})));
}

TEST(ReadModelConfig, ReadsBothFilesOfAFolder) {
  TempDir dir;
  EXPECT_EQ(ReadModelConfig(dir.path()).status().code(), absl::StatusCode::kNotFound);
  dir.Write("config.json", Llama().dump());
  EXPECT_THAT(ReadModelConfig(dir.path())->eos_token_ids, ElementsAre(2));
  dir.Write("generation_config.json", R"({"eos_token_id":[4]})");
  EXPECT_THAT(ReadModelConfig(dir.path())->eos_token_ids, ElementsAre(4));
}

}  // namespace
}  // namespace gatefold

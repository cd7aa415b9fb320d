#include "router-service/gateway/effective_config.h"

#include <numeric>
#include <set>

#include "absl/strings/match.h"
#include "gatefold/base/errors.h"
#include "gtest/gtest.h"
#include "router-service/gateway/gateway_fakes.h"
#include "router-service/gateway/random_bits.h"

namespace gatefold {
namespace {

using inference::v1::GenerationConfig;
using inference::v1::OutputOptions;

TEST(FillDefaultsTest, TakesTheModelsDefaultsWhereTheRequestIsSilent) {
  ModelInfo model = TinyModel();
  model.defaults = {0.6f, 0.9f, 20, 0.05f, 1.1f};
  const GenerationConfig config = FillDefaults({}, model);
  EXPECT_EQ(config.temperature(), 0.6f);
  EXPECT_EQ(config.top_p(), 0.9f);
  EXPECT_EQ(config.top_k(), 20);
  EXPECT_EQ(config.min_p(), 0.05f);
  EXPECT_EQ(config.repetition_penalty(), 1.1f);
  EXPECT_EQ(config.candidate_count(), 1);
  EXPECT_TRUE(config.has_min_output_tokens() && config.has_presence_penalty() &&
              config.has_frequency_penalty() && config.has_ignore_eos());
}

TEST(FillDefaultsTest, KeepsZerosOfTheRequest) {
  ModelInfo model = TinyModel();
  model.defaults.temperature = 0.6f;
  model.defaults.top_k = 20;
  GenerationConfig config;
  config.set_temperature(0);
  config.set_top_k(0);
  config.set_seed(0);
  const GenerationConfig filled = FillDefaults(config, model);
  EXPECT_EQ(filled.temperature(), 0);
  EXPECT_EQ(filled.top_k(), 0);
  EXPECT_EQ(filled.seed(), 0);
}

TEST(FillDefaultsTest, DrawsADifferentSeedEachTime) {
  std::set<uint64_t> seeds;
  for (int i = 0; i < 100; ++i) seeds.insert(FillDefaults({}, TinyModel()).seed());
  EXPECT_EQ(seeds.size(), 100);
}

TEST(CandidateSeedTest, FirstIsTheRequestsOwnAndTheOthersDiffer) {
  EXPECT_EQ(CandidateSeed(42, 0), 42);
  std::set<uint64_t> seeds;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    for (int i = 0; i < 8; ++i) seeds.insert(CandidateSeed(seed, i));
  }
  EXPECT_EQ(seeds.size(), 800);
  EXPECT_EQ(CandidateSeed(42, 3), CandidateSeed(42, 3));
}

class FitPromptTest : public testing::Test {
 protected:
  absl::StatusOr<int> Fit(int n_prompt, inference::v1::TruncationPolicy policy =
                                            inference::v1::TRUNCATION_POLICY_UNSPECIFIED) {
    prompt_.resize(n_prompt);
    std::iota(prompt_.begin(), prompt_.end(), 0);
    return FitPrompt(100, 50, policy, std::nullopt, &config_, &prompt_);
  }
  GenerationConfig config_;
  std::vector<int32_t> prompt_;
};

TEST_F(FitPromptTest, GivesAsManyOutputTokensAsThereIsRoomFor) {
  EXPECT_EQ(*Fit(10), 0);
  EXPECT_EQ(config_.max_output_tokens(), 50);
  config_.Clear();
  EXPECT_EQ(*Fit(99), 0);
  EXPECT_EQ(config_.max_output_tokens(), 1);
}

TEST_F(FitPromptTest, RefusesAPromptThatIsTooLongWithBothNumbers) {
  const ErrorDetails details = GetErrorDetails(Fit(101).status());
  EXPECT_EQ(details.reason, kContextLengthExceeded);
  EXPECT_EQ(details.metadata, (std::vector<std::pair<std::string, std::string>>{
                                  {"prompt_tokens", "101"}, {"limit", "100"}}));
  EXPECT_TRUE(absl::StrContains(Fit(100).status().message(), "no output token fits"));
  EXPECT_EQ(ReasonOf(Fit(100).status()), kContextLengthExceeded);
  config_.set_max_output_tokens(0);
  EXPECT_EQ(*Fit(100), 0);
}

TEST_F(FitPromptTest, DropsTheOldestTokensOnRequest) {
  config_.set_max_output_tokens(30);
  EXPECT_EQ(*Fit(90, inference::v1::TRUNCATION_POLICY_KEEP_END), 20);
  EXPECT_EQ(prompt_.size(), 70);
  EXPECT_EQ(prompt_.front(), 20);
  EXPECT_EQ(prompt_.back(), 89);
  EXPECT_EQ(*Fit(70, inference::v1::TRUNCATION_POLICY_KEEP_END), 0);
}

TEST_F(FitPromptTest, KeepsALeadingBosWhenItTruncates) {
  prompt_.assign(200, 1);
  prompt_.front() = 256;
  EXPECT_EQ(*FitPrompt(100, 50, inference::v1::TRUNCATION_POLICY_KEEP_END, 256, &config_, &prompt_),
            125);
  EXPECT_EQ(prompt_.size(), 75);
  EXPECT_EQ(prompt_.front(), 256);
  EXPECT_EQ(config_.max_output_tokens(), 25);
}

TEST_F(FitPromptTest, RefusesToTruncateToNothing) {
  config_.set_max_output_tokens(100);
  const absl::Status status = Fit(200, inference::v1::TRUNCATION_POLICY_KEEP_END).status();
  EXPECT_TRUE(absl::StrContains(status.message(), "config.max_output_tokens")) << status;
}

TEST(MakeGenerationRequestTest, StopsOnEosUnlessItIsIgnored) {
  GenerationConfig config;
  config.add_stop_token_ids(3);
  config.add_stop_token_ids(3);
  EXPECT_EQ(MakeGenerationRequest(config, {}, TinyModel(), 0).stop_token_ids,
            (std::vector<int32_t>{FakeCodec::kEos, 3}));
  config.set_ignore_eos(true);
  EXPECT_EQ(MakeGenerationRequest(config, {}, TinyModel(), 0).stop_token_ids,
            (std::vector<int32_t>{3}));
}

TEST(MakeGenerationRequestTest, BansStopTokensBeforeTheMinimum) {
  GenerationConfig config;
  config.add_stop_token_ids(3);
  EXPECT_TRUE(MakeGenerationRequest(config, {}, TinyModel(), 0).sampling.banned_until_min.empty());
  config.set_min_output_tokens(2);
  const SamplingParams sampling = MakeGenerationRequest(config, {}, TinyModel(), 0).sampling;
  EXPECT_EQ(sampling.min_output_tokens, 2);
  EXPECT_EQ(sampling.banned_until_min, (std::vector<int32_t>{FakeCodec::kEos, 3}));
}

TEST(MakeGenerationRequestTest, AsksAboutThePromptOnlyOnce) {
  GenerationConfig config;
  config.set_seed(9);
  config.set_top_k(4000000000u);
  config.set_max_output_tokens(4000000000u);
  OutputOptions output;
  output.set_prompt_logprobs(true);
  output.set_top_logprobs(4);
  const GenerationRequest first = MakeGenerationRequest(config, output, TinyModel(), 0);
  EXPECT_TRUE(first.score_prompt);
  EXPECT_EQ(first.n_prompt_top_logprobs, 4);
  EXPECT_EQ(first.sampling.n_top_logprobs, 4);
  EXPECT_TRUE(first.sampling.want_logprob);
  EXPECT_EQ(first.sampling.seed, 9);
  EXPECT_EQ(first.sampling.top_k, 300);
  EXPECT_EQ(first.max_output_tokens, 128);
  const GenerationRequest second = MakeGenerationRequest(config, output, TinyModel(), 1);
  EXPECT_FALSE(second.score_prompt);
  EXPECT_NE(second.sampling.seed, 9);
}

TEST(CheckResponseSizeTest, RefusesWhatWouldMakeAHugeAnswer) {
  OutputOptions output;
  EXPECT_TRUE(CheckResponseSize(output, TinyModel(), 1'000'000'000, 1000).ok());
  output.set_routing_trace(true);
  EXPECT_TRUE(CheckResponseSize(output, TinyModel(), 10, 280).ok());
  const absl::Status status = CheckResponseSize(output, TinyModel(), 11, 280);
  EXPECT_TRUE(absl::StrContains(status.message(), "output.routing_trace")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "308")) << status;
}

TEST(MakeModelInfoTest, CountsParametersAndReadsDefaults) {
  ModelConfig config;
  config.family = "mixtral";
  config.vocab_size = 32000;
  config.d_model = 4096;
  config.n_layers = 32;
  config.n_heads = 32;
  config.n_kv_heads = 8;
  config.head_dim = 128;
  config.d_ff = 14336;
  config.n_experts = 8;
  config.top_k = 2;
  config.generation.temperature = 0.7;
  ModelInfo info = MakeModelInfo("m", "f", config);
  EXPECT_EQ(info.parameters, 46'702'792'704u);  // what Mixtral-8x7B's checkpoint holds
  EXPECT_EQ(info.active_parameters, 12'879'925'248u);
  EXPECT_EQ(info.defaults.temperature, 0.7f);
  config.generation.do_sample = false;
  EXPECT_EQ(MakeModelInfo("m", "f", config).defaults.temperature, 0);
  EXPECT_EQ(ToProto(info).n_experts(), 8);
}

TEST(GatewayOptionsTest, NamesTheOptionThatMakesNoSense) {
  EXPECT_TRUE(GatewayOptions().Validate().ok());
  GatewayOptions options;
  options.limits.max_candidates = 0;
  EXPECT_TRUE(absl::StrContains(options.Validate().message(), "limits.max_candidates is 0"));
}

}  // namespace
}  // namespace gatefold

#include "attention-service/sampler.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

int32_t Draw(const std::vector<float>& logits, const SamplingParams& params,
             const std::vector<int32_t>& tokens = {0}) {
  return DrawToken(logits, params, tokens, static_cast<int>(tokens.size()) - 1);
}

// How often each token is drawn over positions [0, n).
std::vector<int> Histogram(const std::vector<float>& logits, const SamplingParams& params, int n) {
  std::vector<int> counts(logits.size());
  for (int position = 0; position < n; ++position) {
    ++counts[DrawToken(logits, params, {}, position)];
  }
  return counts;
}

TEST(SamplerTest, PhiloxMatchesThePublishedVectors) {
  // Known answers of Philox4x32-10 for an all-zero counter and key: 6627e8d5 e169c58d ...
  EXPECT_EQ(UniformAt(0, 0), static_cast<double>((uint64_t{0x6627e8d5e169c58d}) >> 11) * 0x1.0p-53);
}

TEST(SamplerTest, UniformDependsOnSeedAndPosition) {
  EXPECT_EQ(UniformAt(7, 3), UniformAt(7, 3));
  EXPECT_NE(UniformAt(7, 3), UniformAt(7, 4));
  EXPECT_NE(UniformAt(7, 3), UniformAt(8, 3));
  double sum = 0;
  for (int i = 0; i < 10000; ++i) sum += UniformAt(1, i);
  EXPECT_NEAR(sum / 10000, 0.5, 0.01);
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfTies) { EXPECT_EQ(Draw({1, 3, 3, 2}, Greedy()), 1); }

TEST(SamplerTest, NanNeverWins) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Draw({nan, 1, nan, 2}, Greedy()), 3);
  SamplingParams params;
  for (int i = 0; i < 50; ++i) {
    const int32_t token = DrawToken(std::vector<float>{nan, 1, nan, 2}, params, {}, i);
    EXPECT_TRUE(token == 1 || token == 3);
  }
}

TEST(SamplerTest, ArgmaxIsTheFirstOfTheHighestWhereverTheyAre) {
  for (size_t n : {1, 15, 16, 17, 50}) {
    for (size_t first = 0; first < n; ++first) {
      std::vector<float> logits(n, -2.0f);
      for (size_t i = first; i < n; i += 3) logits[i] = -1.0f;
      if (first > 0) logits[0] = NAN;
      EXPECT_EQ(Argmax(logits), static_cast<int32_t>(first)) << n << " logits";
    }
  }
  EXPECT_EQ(Argmax(std::vector<float>(40, NAN)), 0);
}

TEST(SamplerTest, DrawsFollowTheDistribution) {
  const std::vector<int> counts = Histogram({0, std::log(2.0f), std::log(5.0f)}, {}, 16000);
  EXPECT_NEAR(counts[0], 2000, 200);
  EXPECT_NEAR(counts[1], 4000, 250);
  EXPECT_NEAR(counts[2], 10000, 300);
}

TEST(SamplerTest, TopKKeepsTheLikeliest) {
  SamplingParams params;
  params.top_k = 2;
  const std::vector<int> counts = Histogram({1, 2, 2, 2, 0}, params, 500);
  EXPECT_EQ(counts[0] + counts[3] + counts[4], 0);  // of the tie, the lower ids stay
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[2], 0);
}

TEST(SamplerTest, TopPKeepsTheShortestPrefixThatReachesIt) {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  const std::vector<float> logits = {0, std::log(2.0f), std::log(4.0f), 0};
  SamplingParams params;
  params.top_p = 0.5f;
  EXPECT_EQ(Histogram(logits, params, 300)[2], 300);
  params.top_p = 0.6f;
  const std::vector<int> counts = Histogram(logits, params, 300);
  EXPECT_EQ(counts[1] + counts[2], 300);
  EXPECT_GT(counts[1], 0);
}

TEST(SamplerTest, TopPReachesBeyondTheFirstSortedPart) {
  SamplingParams params;
  params.top_p = 0.999f;
  const std::vector<int> counts = Histogram(std::vector<float>(3000, 1.0f), params, 6000);
  int beyond = 0;
  for (int i = 1000; i < 2990; ++i) beyond += counts[i];
  EXPECT_GT(beyond, 3000);
  for (int i = 2998; i < 3000; ++i) EXPECT_EQ(counts[i], 0);
}

TEST(SamplerTest, MinPDropsWhatIsMuchLessLikelyThanTheBest) {
  SamplingParams params;
  params.min_p = 0.3f;
  const std::vector<int> counts = Histogram({0, std::log(2.0f), std::log(4.0f)}, params, 300);
  EXPECT_EQ(counts[0], 0);
  EXPECT_GT(counts[1], 0);
}

TEST(SamplerTest, PenaltiesLowerWhatWasSaid) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2;
  EXPECT_EQ(Draw({3, 2, -1}, params, {0}), 1);  // counts the prompt too
  params = Greedy();
  params.presence_penalty = 1.5f;
  params.n_prompt_tokens = 1;
  EXPECT_EQ(Draw({3, 2, -1}, params, {0}), 0);     // said in the prompt only
  EXPECT_EQ(Draw({3, 2, -1}, params, {5, 0}), 1);  // said in the output
  params.presence_penalty = 0;
  params.frequency_penalty = 0.6f;
  EXPECT_EQ(Draw({3, 2, -1}, params, {5, 0}), 0);
  EXPECT_EQ(Draw({3, 2, -1}, params, {5, 0, 0}), 1);
}

TEST(SamplerTest, BiasAndBansDecide) {
  SamplingParams params = Greedy();
  params.logit_bias[2] = 10;
  EXPECT_EQ(Draw({3, 2, -1}, params), 2);
  params.banned = {2};
  EXPECT_EQ(Draw({3, 2, -1}, params), 0);
  params.banned_until_min = {0};
  params.min_output_tokens = 2;
  params.n_prompt_tokens = 1;
  EXPECT_EQ(Draw({3, 2, -1}, params, {9}), 1);        // draws output token 0
  EXPECT_EQ(Draw({3, 2, -1}, params, {9, 9, 9}), 0);  // draws output token 2
}

TEST(SamplerTest, NothingIsDrawnBesideAnInfiniteLogit) {
  SamplingParams params;
  params.temperature = 1;
  for (int seed = 0; seed < 20; ++seed) {
    params.seed = seed;
    EXPECT_EQ(Draw({3, 2, std::numeric_limits<float>::infinity(), 4}, params), 2);
  }
}

TEST(SamplerTest, KnowsWhetherLogitsAreDrawnFromAsTheyAre) {
  SamplingParams plain = Greedy();
  plain.top_k = 3;
  plain.n_top_logprobs = 2;
  EXPECT_TRUE(DrawsFromPlainLogits(plain, 5));
  for (const auto change : {+[](SamplingParams* p) { p->repetition_penalty = 1.1f; },
                            +[](SamplingParams* p) { p->presence_penalty = 0.1f; },
                            +[](SamplingParams* p) { p->frequency_penalty = 0.1f; },
                            +[](SamplingParams* p) { p->logit_bias[3] = 1; },
                            +[](SamplingParams* p) { p->banned = {3}; }}) {
    SamplingParams params = plain;
    change(&params);
    EXPECT_FALSE(DrawsFromPlainLogits(params, 5));
  }
  plain.banned_until_min = {3};
  plain.n_prompt_tokens = 4;
  plain.min_output_tokens = 3;
  EXPECT_FALSE(DrawsFromPlainLogits(plain, 5));  // draws output token 2
  EXPECT_TRUE(DrawsFromPlainLogits(plain, 6));
}

TEST(SamplerTest, ReportsLogprobsOfTheUnmodifiedDistribution) {
  SamplingParams params = Greedy();
  params.n_top_logprobs = 2;
  params.logit_bias[0] = 100;
  const std::vector<float> logits = {0, std::log(3.0f)};
  const Sampled sampled = Describe(logits, params, Draw(logits, params));
  EXPECT_EQ(sampled.token, 0);
  EXPECT_EQ(sampled.argmax, 1);
  EXPECT_NEAR(sampled.logprob, std::log(0.25), 1e-6);
  ASSERT_EQ(sampled.top.size(), 2u);
  EXPECT_EQ(sampled.top[0].first, 1);
  EXPECT_NEAR(sampled.top[0].second, std::log(0.75), 1e-6);
}

TEST(SamplerTest, InfiniteLogitsShareTheWholeProbability) {
  const float inf = std::numeric_limits<float>::infinity();
  SamplingParams params = Greedy();
  params.n_top_logprobs = 3;
  const Sampled one = Describe(std::vector<float>{3, inf, -inf}, params, 1);
  EXPECT_EQ(one.logprob, 0);
  EXPECT_EQ(one.top[0], std::make_pair(1, 0.0f));
  EXPECT_EQ(one.top[1], std::make_pair(0, -inf));
  EXPECT_EQ(one.top[2], std::make_pair(2, -inf));
  const Sampled two = Describe(std::vector<float>{inf, 3, inf}, params, 0);
  EXPECT_NEAR(two.logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(two.top[1], std::make_pair(2, two.logprob));
  EXPECT_EQ(Describe(std::vector<float>{inf, 3, inf}, params, 1).logprob, -inf);
  // One that none can have is none of the others' business.
  EXPECT_NEAR(Describe(std::vector<float>{2, -inf, 2}, params, 0).logprob, std::log(0.5), 1e-6);
  EXPECT_NEAR(Describe(std::vector<float>(4, -inf), params, 0).logprob, std::log(0.25), 1e-6);
}

}  // namespace
}  // namespace gatefold

#include "router-service/gateway/stop_matcher.h"

#include <algorithm>
#include <random>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

struct Outcome {
  std::string text;
  int matched = -1;
  bool operator==(const Outcome&) const = default;
};

// By the definition: the stop string that ends first, the longest of those.
Outcome ByDefinition(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (int i = 0; i < static_cast<int>(stops.size()); ++i) {
      const std::string& stop = stops[i];
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          (best < 0 || stop.size() > stops[best].size())) {
        best = i;
      }
    }
    if (best >= 0) return {text.substr(0, end - stops[best].size()), best};
  }
  return {text, -1};
}

// Pushes `text` cut at `cuts`; checks at each piece that no more is held than may be.
Outcome InPieces(const std::string& text, const std::vector<std::string>& stops,
                 const std::vector<size_t>& cuts) {
  size_t longest = 0;
  for (const std::string& stop : stops) longest = std::max(longest, stop.size());
  StopMatcher matcher(stops);
  Outcome outcome;
  size_t begin = 0;
  for (size_t i = 0; i <= cuts.size(); ++i) {
    const size_t end = i < cuts.size() ? cuts[i] : text.size();
    StopMatcher::Result result = matcher.Push(text.substr(begin, end - begin));
    outcome.text += result.text;
    begin = end;
    if (result.matched.has_value()) {
      outcome.matched = *result.matched;
      EXPECT_EQ(matcher.Push("more").text, "");
      EXPECT_EQ(matcher.Finish(), "");
      return outcome;
    }
    EXPECT_LT(end - outcome.text.size(), std::max<size_t>(longest, 1)) << "held back too much";
  }
  outcome.text += matcher.Finish();
  return outcome;
}

TEST(StopMatcherTest, FindsStopStringsAtEverySplit) {
  const std::vector<std::vector<std::string>> stop_sets = {
      {"END"}, {"aab"}, {"abab", "ba"}, {"b", "ab"}, {"abc", "b"}, {"aaa", "aa"}, {"né", "é!"}, {}};
  const std::vector<std::string> texts = {
      "the END is near", "EEND", "ENEND", "aaab", "abaabab", "xaab", "EN", "cané!", "caé!", ""};
  for (const auto& stops : stop_sets) {
    for (const std::string& text : texts) {
      const Outcome expected = ByDefinition(text, stops);
      for (size_t i = 0; i <= text.size(); ++i) {
        for (size_t k = i; k <= text.size(); ++k) {
          EXPECT_EQ(InPieces(text, stops, {i, k}), expected)
              << text << " cut at " << i << ", " << k;
        }
      }
    }
  }
}

TEST(StopMatcherTest, AgreesWithTheDefinitionOnRandomTexts) {
  std::mt19937 random(1);
  const auto word = [&](int longest) {
    std::string out;
    const int n = 1 + random() % longest;
    for (int i = 0; i < n; ++i) out.push_back("ab"[random() % 2]);
    return out;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops;
    for (int i = random() % 4; i >= 0; --i) stops.push_back(word(6));
    const std::string text = word(24);
    std::vector<size_t> cuts;
    for (size_t i = 0; i < text.size(); ++i) {
      if (random() % 2) cuts.push_back(i);
    }
    // Equal stop strings: either index will do.
    const Outcome got = InPieces(text, stops, cuts), expected = ByDefinition(text, stops);
    EXPECT_EQ(got.text, expected.text);
    EXPECT_EQ(got.matched < 0, expected.matched < 0);
  }
}

TEST(StopMatcherTest, PassesWhatTurnsOutNotToBeAStopString) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Push("aSTO").text, "a");
  EXPECT_EQ(matcher.Push("RM").text, "STORM");
  EXPECT_EQ(matcher.Push("ST").text, "");
  EXPECT_EQ(matcher.Finish(), "ST");
}

TEST(StopMatcherTest, IgnoresMatchesThatEndWhileItMayNotStop) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Push("aSTOPb", false).text, "aSTOPb");
  EXPECT_EQ(matcher.Push("cSTO", false).text, "c");
  const StopMatcher::Result result = matcher.Push("P", true);
  EXPECT_EQ(result.text, "");
  EXPECT_EQ(result.matched, 0);
}

TEST(StopMatcherTest, TakesTheLongestOfThoseThatEndTogether) {
  StopMatcher matcher({"b", "aab", "ab"});
  const StopMatcher::Result result = matcher.Push("xaab");
  EXPECT_EQ(result.text, "x");
  EXPECT_EQ(result.matched, 1);
}

}  // namespace
}  // namespace gatefold

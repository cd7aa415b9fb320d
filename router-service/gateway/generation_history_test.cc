#include "router-service/gateway/generation_history.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

GenerationHistory::Trace Named(const std::string& id, const std::string& caller = "") {
  GenerationHistory::Trace trace;
  trace.set_request_id(id);
  trace.set_caller(caller);
  return trace;
}

TEST(GenerationHistoryTest, FindsTheLastOfAnId) {
  GenerationHistory history(10, 1 << 20);
  history.Add(Named("a"));
  GenerationHistory::Trace again = Named("a");
  again.set_degraded_tokens(3);
  history.Add(again);
  ASSERT_TRUE(history.Find("a", std::nullopt).has_value());
  EXPECT_EQ(history.Find("a", std::nullopt)->degraded_tokens(), 3);
  EXPECT_FALSE(history.Find("b", std::nullopt).has_value());
}

TEST(GenerationHistoryTest, ACallerSeesOnlyItsOwn) {
  GenerationHistory history(10, 1 << 20);
  history.Add(Named("a", "alice"));
  EXPECT_TRUE(history.Find("a", "alice").has_value());
  EXPECT_FALSE(history.Find("a", "bob").has_value());
  EXPECT_FALSE(history.Find("a", "").has_value());
  EXPECT_TRUE(history.Find("a", std::nullopt).has_value());
  // One caller's use of an id hides nothing of another's.
  history.Add(Named("a", "bob"));
  EXPECT_EQ(history.Find("a", "alice")->caller(), "alice");
}

TEST(GenerationHistoryTest, ForgetsTheOldestBeyondItsCount) {
  GenerationHistory history(3, 1 << 20);
  for (int i = 0; i < 5; ++i) history.Add(Named(absl::StrCat(i)));
  EXPECT_FALSE(history.Find("1", std::nullopt).has_value());
  EXPECT_TRUE(history.Find("2", std::nullopt).has_value());
}

TEST(GenerationHistoryTest, ForgetsTheOldestBeyondItsBytes) {
  GenerationHistory history(1000, 10'000);
  for (int i = 0; i < 20; ++i) {
    GenerationHistory::Trace trace = Named(absl::StrCat(i));
    trace.mutable_prompt_routing()->set_expert_ids(std::string(1000, 'x'));
    history.Add(trace);
  }
  EXPECT_FALSE(history.Find("9", std::nullopt).has_value());
  ASSERT_TRUE(history.Find("11", std::nullopt).has_value());
  EXPECT_EQ(history.Find("11", std::nullopt)->prompt_routing().expert_ids().size(), 1000);
}

}  // namespace
}  // namespace gatefold

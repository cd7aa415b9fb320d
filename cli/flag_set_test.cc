#include "cli/flag_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/error_report.h"

namespace gatefold::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FlagSetTest : public testing::Test {
 protected:
  FlagSetTest() {
    flags_.Add("max-tokens", "N", "at most so many", &max_tokens_);
    flags_.Add("temperature", "X", "how hot", &temperature_);
    flags_.Add("stop", "TEXT", "ends", &stop_);
    flags_.Add("tokens", "IDS", "ids", &tokens_);
    flags_.Add("output", "FORMAT", "form", &output_, 'o');
    flags_.AddSwitch("bos", "with BOS", &bos_);
  }
  // Parses; what is left of the arguments.
  std::vector<std::string> Parse(const std::vector<std::string>& arguments,
                                 const Environment& environment = {}) {
    const auto rest = flags_.Parse(arguments, environment);
    EXPECT_TRUE(rest.ok()) << rest.status();
    return rest.value_or(std::vector<std::string>());
  }
  std::string Error(const std::vector<std::string>& arguments,
                    const Environment& environment = {}) {
    const auto rest = flags_.Parse(arguments, environment);
    EXPECT_TRUE(IsUsageError(rest.status())) << rest.status();
    return std::string(rest.status().message());
  }

  FlagSet flags_;
  std::optional<uint32_t> max_tokens_;
  std::optional<float> temperature_;
  std::vector<std::string> stop_;
  std::vector<int32_t> tokens_;
  std::string output_ = "table";
  bool bos_ = true;
};

TEST_F(FlagSetTest, TakesValuesInEitherForm) {
  EXPECT_THAT(Parse({"--max-tokens", "8", "hello", "--temperature=0"}), ElementsAre("hello"));
  EXPECT_EQ(max_tokens_, 8u);
  EXPECT_EQ(temperature_, 0.0f);
}

TEST_F(FlagSetTest, LeavesWhatIsNotGivenUnset) {
  Parse({});
  EXPECT_FALSE(max_tokens_.has_value());
  EXPECT_TRUE(bos_);
}

TEST_F(FlagSetTest, TakesLettersAndUnderscores) {
  Parse({"-o", "json", "--max_tokens", "3"});
  EXPECT_EQ(output_, "json");
  EXPECT_EQ(max_tokens_, 3u);
  Parse({"-otable"});
  EXPECT_EQ(output_, "table");
}

TEST_F(FlagSetTest, TurnsSwitchesOnAndOff) {
  Parse({"--no-bos", "text"});
  EXPECT_FALSE(bos_);
  EXPECT_THAT(Parse({"--bos", "text"}), ElementsAre("text"));
  EXPECT_TRUE(bos_);
  Parse({"--bos=false"});
  EXPECT_FALSE(bos_);
}

TEST_F(FlagSetTest, CollectsLists) {
  Parse({"--stop", "a", "--stop", "b", "--tokens", "1,5,9", "--tokens=[7]"});
  EXPECT_THAT(stop_, ElementsAre("a", "b"));
  EXPECT_THAT(tokens_, ElementsAre(1, 5, 9, 7));
}

TEST_F(FlagSetTest, TakesANegativeValueButNotForCounts) {
  EXPECT_THAT(Error({"--max-tokens", "-1"}), HasSubstr("--max-tokens is \"-1\""));
  Parse({"--temperature", "-0.5"});
  EXPECT_EQ(temperature_, -0.5f);
}

TEST_F(FlagSetTest, PrefersTheCommandLineToTheEnvironment) {
  const Environment environment = {{"GATEFOLD_MAX_TOKENS", "5"}, {"GATEFOLD_BOS", "0"}};
  Parse({"--max-tokens", "9"}, environment);
  EXPECT_EQ(max_tokens_, 9u);
  EXPECT_FALSE(bos_);
  EXPECT_TRUE(flags_.OnCommandLine("max-tokens"));
  EXPECT_FALSE(flags_.OnCommandLine("bos"));
}

TEST_F(FlagSetTest, NamesTheVariableThatIsWrong) {
  EXPECT_THAT(Error({}, {{"GATEFOLD_MAX_TOKENS", "many"}}), HasSubstr("GATEFOLD_MAX_TOKENS"));
}

TEST_F(FlagSetTest, ProposesTheNearestName) {
  EXPECT_THAT(Error({"--max-token", "3"}), HasSubstr("did you mean --max-tokens?"));
  EXPECT_THAT(Error({"--temprature=1"}), HasSubstr("did you mean --temperature?"));
  EXPECT_THAT(Error({"--elephant"}), testing::Not(HasSubstr("did you mean")));
}

TEST_F(FlagSetTest, RefusesAFlagWithoutItsValue) {
  EXPECT_THAT(Error({"--max-tokens"}), HasSubstr("--max-tokens wants a value: N"));
  EXPECT_THAT(Error({"-x"}), HasSubstr("there is no flag -x"));
  EXPECT_THAT(Error({"--no-max-tokens"}), HasSubstr("no flag --no-max-tokens"));
}

TEST_F(FlagSetTest, EndsFlagsAtTwoDashesAndKeepsASingleOne) {
  EXPECT_THAT(Parse({"-", "--", "--max-tokens", "-o"}), ElementsAre("-", "--max-tokens", "-o"));
  EXPECT_FALSE(max_tokens_.has_value());
}

TEST_F(FlagSetTest, StopsAtHelp) {
  Parse({"--help", "--nonsense"});
  EXPECT_TRUE(flags_.help_wanted());
  EXPECT_THAT(flags_.Help(), HasSubstr("--[no-]bos"));
  EXPECT_THAT(flags_.Help(), HasSubstr("-o, --output FORMAT"));
}

}  // namespace
}  // namespace gatefold::cli

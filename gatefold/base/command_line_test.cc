#include "gatefold/base/command_line.h"

#include <unistd.h>

#include <algorithm>

#include "absl/flags/flag.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

ABSL_FLAG(int, test_metrics_port, 0, "for this test");
ABSL_FLAG(bool, test_switch, false, "for this test");

namespace gatefold {
namespace {

using testing::ElementsAre;

TEST(CommandLineTest, DashesInNamesAreUnderscores) {
  EXPECT_THAT(ExpandArguments({"prog", "--test-metrics-port=-1", "--a-b=c-d", "x-y"}, {}),
              ElementsAre("prog", "--test_metrics_port=-1", "--a_b=c-d", "x-y"));
}

TEST(CommandLineTest, TheEnvironmentFillsInWhatIsNotGiven) {
  const std::vector<std::string> environment = {"GATEFOLD_TEST_METRICS_PORT=7", "PATH=/bin",
                                                "GATEFOLD_NO_SUCH_FLAG=1"};
  EXPECT_THAT(ExpandArguments({"prog"}, environment), ElementsAre("prog", "--test_metrics_port=7"));
  EXPECT_THAT(ExpandArguments({"prog", "--test-metrics-port=3"}, environment),
              ElementsAre("prog", "--test_metrics_port=3"));
}

// absl takes these forms, too.
TEST(CommandLineTest, FlagsBeatTheEnvironmentHoweverTheyAreGiven) {
  const std::vector<std::string> environment = {"GATEFOLD_TEST_METRICS_PORT=7",
                                                "GATEFOLD_TEST_SWITCH=true"};
  EXPECT_THAT(ExpandArguments({"prog", "--notest-switch", "-test_metrics_port", "3"}, environment),
              ElementsAre("prog", "--notest_switch", "-test_metrics_port", "3"));
}

TEST(CommandLineDeathTest, HelpIsNoUnknownFlag) {
  char program[] = "prog", flag[] = "--help";
  char* help[] = {program, flag};
  // absl prints to standard output and exits.
  EXPECT_EXIT(
      ParseFlags(2, help), [](int status) { return WEXITSTATUS(status) != 2; }, "");
}

TEST(CommandLineDeathTest, UnknownFlagsAreAUsageError) {
  char program[] = "prog", flag[] = "--no-such-thing=1", word[] = "word";
  char* unknown[] = {program, flag};
  EXPECT_EXIT(ParseFlags(2, unknown), testing::ExitedWithCode(2), "unknown flag --no_such_thing");
  char* stray[] = {program, word};
  EXPECT_EXIT(ParseFlags(2, stray), testing::ExitedWithCode(2), "\"word\" is no flag");
}

TEST(CommandLineDeathTest, SoAreValuesThatAFlagCannotHave) {
  const auto exits = [](std::vector<std::string> arguments, const std::string& message) {
    arguments.insert(arguments.begin(), "prog");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    EXPECT_EXIT(ParseFlags(static_cast<int>(argv.size()), argv.data()), testing::ExitedWithCode(2),
                message);
  };
  exits({"--test-metrics-port=abc"},
        "Illegal value 'abc' specified for flag 'test_metrics_port'; see --help");
  exits({"--test-metrics-port", "abc"},
        "Illegal value 'abc' specified for flag 'test_metrics_port'; see --help");
  exits({"--test-metrics-port"}, "--test_metrics_port has no value");
  exits({"--test-switch=maybe"}, "Illegal value 'maybe'");
  exits({"--notest-metrics-port"}, "unknown flag --notest_metrics_port");
  exits({"-no_such_thing"}, "unknown flag -no_such_thing");
  exits({"-test_metrics_port=abc"}, "Illegal value 'abc'");
  exits({"-"}, "\"-\" is no flag");
}

TEST(CommandLineDeathTest, TellsTheProgramsVersion) {
  char program[] = "prog", flag[] = "--version";
  char* argv[] = {program, flag};
  // On stdout, which a death test does not see.
  EXPECT_EXIT((dup2(STDERR_FILENO, STDOUT_FILENO), ParseFlags(2, argv, "prog 1.2.3")),
              testing::ExitedWithCode(0), "^prog 1.2.3\n$");
}

TEST(CommandLineDeathTest, GoodOnesAreTaken) {
  std::string arguments[] = {"prog", "--test-metrics-port", "-1", "--notest-switch"};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(),
                  arguments[3].data()};
  ParseFlags(4, argv);
  EXPECT_EQ(absl::GetFlag(FLAGS_test_metrics_port), -1);
  EXPECT_FALSE(absl::GetFlag(FLAGS_test_switch));
}

TEST(CommandLineTest, TellsTheFlagsOfTheProgramAndNoneOfTheLibrary) {
  absl::SetFlag(&FLAGS_test_metrics_port, 9090);
  const auto values = FlagValues();
  EXPECT_THAT(values, testing::Contains(testing::Pair("test-metrics-port", "9090")));
  EXPECT_THAT(values, testing::Not(testing::Contains(testing::Key("flagfile"))));
  EXPECT_TRUE(std::is_sorted(values.begin(), values.end()));
}

}  // namespace
}  // namespace gatefold

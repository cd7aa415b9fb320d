#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "cli/command.h"
#include "cli/output.h"

namespace gatefold::cli {
namespace {

using testing::HasSubstr;

class PlanVerbTest : public testing::Test {
 protected:
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "plan");
    std::istringstream in;
    std::ostringstream out, err;
    Interrupts interrupts;
    Console console{in, out, err, false, &interrupts};
    const int exit_code = RunCommand(arguments, {}, &console);
    out_ = out.str();
    err_ = err.str();
    return exit_code;
  }
  Json Plan(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"-o", "json"});
    EXPECT_EQ(Run(arguments), 0) << err_;
    return Json::parse(out_);
  }

  std::string out_, err_;
};

constexpr char kMixtral[] = "--config=examples/configs/mixtral-8x22b.json";
constexpr char kDeepSeek[] = "--config=examples/configs/deepseek-v3.json";

TEST_F(PlanVerbTest, CountsPodsAsThePlannerFillsThem) {
  const Json plan = Plan({kMixtral});
  // An expert is 604 MB; 141 fit 79.5 GiB; 448 of them take four pods.
  EXPECT_EQ(plan["model"]["expert_bytes"], 2.0 * 3 * 6144 * 16384);
  EXPECT_EQ(plan["needed"]["n_shards"], 4);
  EXPECT_EQ(plan["needed"]["n_attention"], 2);  // 120 GB of keys and values
  ASSERT_EQ(plan["scaling"].size(), 6);
  EXPECT_EQ(plan["scaling"][0]["max_experts"], 448 / 4);
  EXPECT_EQ(plan["scaling"][5]["n_shards"], 128);
  EXPECT_EQ(plan["scaling"][5]["max_experts"], 4);  // 448 over 128, rounded up
  EXPECT_EQ(Plan({kMixtral, "--min-replicas=2"})["needed"]["n_shards"], 7);
  EXPECT_EQ(Plan({kMixtral, "--kv-dtype=bfloat16"})["needed"]["n_attention"], 1);
}

TEST_F(PlanVerbTest, TheBottleneckMovesAsShardsAreAdded) {
  const Json points =
      Plan({kDeepSeek, "--shards=8,64,192", "--memory-bandwidth=2TB/s", "--compute=300TFLOP/s",
            "--network-bandwidth=400Gbit/s", "--copy-bandwidth=50GB/s"})["scaling"];
  double experts = 1e9, messages = 0;
  for (const Json& point : points) {
    EXPECT_LT(point["parts"]["experts"], experts);
    EXPECT_GT(point["parts"]["messages"], messages);
    experts = point["parts"]["experts"];
    messages = point["parts"]["messages"];
  }
  EXPECT_EQ(points[0]["bottleneck"], "experts");
  EXPECT_EQ(points[2]["bottleneck"], "messages");
}

TEST_F(PlanVerbTest, SaysWhereShardsAreTooFew) {
  const Json points = Plan({kMixtral, "--shards=2,4"})["scaling"];
  EXPECT_EQ(points[0], (Json{{"n_shards", 2}, {"fits", false}}));
  EXPECT_EQ(points[1]["fits"], true);
  EXPECT_EQ(Run({kMixtral, "--shards=2"}), 0);
  EXPECT_THAT(out_, HasSubstr("too few"));
}

TEST_F(PlanVerbTest, RefusesWithBothNumbers) {
  EXPECT_EQ(Run({kMixtral, "--memory=1GiB"}), 1);
  EXPECT_THAT(err_, HasSubstr("one expert takes 604.0 MB, a pod has room for 536.9 MB"));
  EXPECT_EQ(Run({"--config=examples/configs/invented-1.8t.json", "--min-replicas=10"}), 1);
  EXPECT_THAT(err_, HasSubstr("a router talks to 255 at most"));
  EXPECT_EQ(Run({kMixtral, "--memory=2GiB"}), 1);
  EXPECT_THAT(err_, HasSubstr("attention-service's weights take 10.7 GB"));
  EXPECT_EQ(Run({kDeepSeek, "--context=1000000", "--attention=1"}), 1);
  EXPECT_THAT(err_, HasSubstr("the KV cache takes"));
  EXPECT_EQ(Run({kMixtral, "--memory=80"}), 2);
  EXPECT_THAT(err_, HasSubstr("--memory \"80\" must be a positive number with a unit"));
  EXPECT_EQ(Run({kMixtral, "--shards=0"}), 2);
  EXPECT_EQ(Run({kMixtral, "--weights=fp3"}), 2);
  EXPECT_EQ(Run({kMixtral, "--weights=checkpoint"}), 0);
  EXPECT_EQ(Run({kMixtral, "--kv-dtype=int8"}), 2);
  EXPECT_EQ(Run({}), 2);
  EXPECT_EQ(Run({"--config=examples"}), 2);
  EXPECT_THAT(err_, HasSubstr("examples/config.json cannot be read"));
}

TEST_F(PlanVerbTest, PlansADenseModelByItsSlices) {
  const Json plan = Plan({"--config=tests/golden/llama/bf16", "--shards=1,8"});
  EXPECT_EQ(plan["model"]["n_experts"], 8);
  EXPECT_EQ(plan["scaling"][1]["expert_messages"], 16);
}

TEST_F(PlanVerbTest, CountsTheParametersOfSmallModelsInMillions) {
  EXPECT_EQ(Run({"--config=models/gatefold-tiny-moe"}), 0);
  EXPECT_THAT(out_, HasSubstr("mixtral, 9.7 M parameters, 3.8 M read per token"));
}

// The page shows what the program says: every block that starts with "$ gatefold plan" is run.
TEST_F(PlanVerbTest, TheTablesOfTheDocsAreTrue) {
  std::ifstream file("docs/scaling.md");
  std::stringstream text;
  text << file.rdbuf();
  const std::string page = text.str();
  const std::string start = "```\n$ gatefold plan ";
  int n_blocks = 0;
  for (size_t at = page.find(start); at != std::string::npos; at = page.find(start, at)) {
    at += start.size();
    const size_t line_end = page.find('\n', at), end = page.find("```", at);
    ASSERT_NE(end, std::string::npos);
    const std::string command = page.substr(at, line_end - at);
    ASSERT_EQ(Run(absl::StrSplit(command, ' ')), 0) << err_;
    EXPECT_EQ(page.substr(line_end + 1, end - line_end - 1), out_) << command;
    ++n_blocks;
  }
  EXPECT_GE(n_blocks, 3);
}

}  // namespace
}  // namespace gatefold::cli

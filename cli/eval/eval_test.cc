#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <sstream>

#include "cli/command.h"
#include "cli/error_report.h"
#include "cli/eval/heat_map.h"
#include "cli/output.h"
#include "cli/verb.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "tools/random_model.h"

namespace gatefold::cli {
namespace {

using testing::HasSubstr;

// `gatefold eval` with a real model of random weights in this process.
class EvalTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = new TempDir();
    RandomModelOptions options;
    options.layers = 2;
    options.d_model = 64;
    options.intermediate = 48;
    options.max_positions = 128;
    ASSERT_TRUE(WriteRandomModel(options, Model()).ok());
    std::string text;
    for (int i = 0; i < 60; ++i) text += "word" + std::to_string(i * i) + (i % 9 ? " " : "\n");
    dir_->Write("long.txt", text);
    dir_->Write("short.txt", "ab\n<|end|>\ncd\xC3\xA9\n<|end|>\n");
  }
  static void TearDownTestSuite() { delete dir_; }

  static std::string Model() { return dir_->File("model"); }
  static std::string File(const std::string& name) { return dir_->File(name); }

  int Run(std::vector<std::string> arguments, const std::string& verb = "eval") {
    arguments.insert(arguments.begin(), verb);
    std::istringstream in;
    std::ostringstream out, err;
    Interrupts interrupts;
    Console console{in, out, err, false, &interrupts};
    const int exit_code = RunCommand(arguments, {}, &console);
    out_ = out.str();
    err_ = err.str();
    return exit_code;
  }
  Json Ask(std::vector<std::string> arguments, const std::string& verb = "eval") {
    arguments.insert(arguments.end(), {"--model", Model(), "-o", "json"});
    EXPECT_EQ(Run(arguments, verb), 0) << err_;
    return Json::parse(out_, nullptr, false);
  }

  static TempDir* dir_;
  std::string out_, err_;
};
TempDir* EvalTest::dir_ = nullptr;

TEST_F(EvalTest, AddsUpWhatScoreSays) {
  double nats = 0;
  for (const char* document : {"ab\n", "cd\xC3\xA9\n"}) {
    const Json score = Ask({document}, "score");
    for (const Json& logprob : score["logprobs"]) {
      if (logprob.is_number()) nats -= logprob.get<double>();
    }
  }
  const Json tag = Ask({File("short.txt")})["texts"]["tags"]["short"];
  EXPECT_NEAR(tag["nats"].get<double>(), nats, 1e-6);
  EXPECT_EQ(tag["documents"], 2);
  EXPECT_EQ(tag["characters"], 7);
  EXPECT_EQ(tag["bytes"], 8);
  EXPECT_EQ(tag["tokens"], 8);  // one per byte; begin of sequence gives the first its likelihood
  EXPECT_NEAR(tag["bits_per_byte"].get<double>(), nats / std::log(2) / 8, 1e-6);
  EXPECT_NEAR(tag["perplexity"].get<double>(), std::exp(nats / 8), 1e-6);
}

TEST_F(EvalTest, ScoresEveryTokenOnceWhateverTheWindow) {
  const Json whole = Ask({File("long.txt"), "--routing"});
  const Json tag = whole["texts"]["tags"]["long"];
  EXPECT_GT(tag["tokens"].get<int>(), 256);  // more than two windows
  EXPECT_EQ(whole["window"], 128);
  for (const char* window : {"2", "3", "50"}) {
    const Json other = Ask({File("long.txt"), "--window", window})["texts"]["tags"]["long"];
    EXPECT_EQ(other["tokens"], tag["tokens"]);
    EXPECT_NE(other["nats"], tag["nats"]);  // it saw less
  }
  // Requests at the same time ride in the same steps; the row law keeps the bits.
  const Json alone = Ask({File("long.txt"), "--concurrency", "1", "--routing"});
  EXPECT_EQ(alone, whole);
}

TEST_F(EvalTest, TellsWhereTokensWent) {
  const Json routing = Ask({File("long.txt"), File("short.txt"), "--routing"})["routing"];
  EXPECT_EQ(routing["layers"].size(), 2);
  for (const char* tag : {"long", "short"}) {
    for (const Json& layer : routing["tags"][tag]) {
      double sum = 0;
      for (const Json& share : layer) sum += share.get<double>();
      EXPECT_NEAR(sum, 1, 1e-9);
    }
  }
  Ask({File("long.txt"), File("short.txt"), "--heat-map", File("map.svg")});
  std::ifstream file(File("map.svg"));
  const std::string svg((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(svg, HasSubstr(">short</text>"));
  const std::string field = "<rect x=";
  size_t n = 0;
  for (size_t at = svg.find(field); at != std::string::npos; at = svg.find(field, at + 1)) ++n;
  EXPECT_EQ(n, 2 * 8 * 2);  // layers, experts, tags
}

// A text of one token, which nothing stands before, has no routes; those of the others are shown.
TEST_F(EvalTest, DrawsTextsWithoutRoutesToo) {
  inference::v1::RoutingTrace trace;
  trace.set_n_tokens(1);
  trace.add_layer_ids(0);
  trace.set_top_k(1);
  trace.set_expert_ids(std::string("\1\0", 2));
  trace.set_gate_weights(std::string(4, '\0'));
  trace.set_shards(std::string(1, '\0'));
  trace.add_shard_names("one");
  Evaluation evaluation;
  evaluation.texts.resize(2);
  evaluation.texts[0].tag = "one\x01token";
  EXPECT_EQ(ExpertHeatMap(evaluation), "");
  ASSERT_TRUE(evaluation.texts[1].experts.Add(trace, 0, 2).ok());
  const std::string svg = ExpertHeatMap(evaluation);
  EXPECT_THAT(svg, HasSubstr(">100</text>"));
  EXPECT_THAT(svg, HasSubstr(">one?token</text>"));
}

TEST_F(EvalTest, KeepsAFormerPictureUntilThereIsANewOne) {
  std::ofstream(File("old.svg")) << "old";
  EXPECT_EQ(Run({File("long.txt"), "--model", File("nothing"), "--heat-map", File("old.svg")}),
            kExitFailed);
  std::ifstream file(File("old.svg"));
  EXPECT_EQ(std::string((std::istreambuf_iterator<char>(file)), {}), "old");
}

TEST_F(EvalTest, ChoosesTheLikeliest) {
  std::ofstream(File("quiz.jsonl"))
      << R"({"tag":"t","question":"q","choices":["zzzz","q","zz"],"answer":"zz"})"
      << "\n"
      << R"({"tag":"u","question":"q","choices":["a","b"],"answer":0})"
      << "\n"
      << R"({"tag":"u","question":"q","choices":["a","b"],"answer":1})"
      << "\n";
  const Json tasks = Ask({"--tasks", File("quiz.jsonl")})["tasks"];
  EXPECT_EQ(tasks["t"]["choice"]["n"], 1);
  EXPECT_EQ(tasks["u"]["choice"]["n"], 2);
  EXPECT_EQ(tasks["u"]["choice"]["accuracy"], 0.5);  // the same question with both answers
  EXPECT_EQ(tasks["u"]["choice"]["accuracy_normalized"], 0.5);
}

TEST_F(EvalTest, ComparesWhatIsWrittenWordForWord) {
  std::ofstream(File("exact.jsonl"))
      << Json({{"tag", "wrong"}, {"question", "1 + 1 ="}, {"answer", "no such thing"}}).dump();
  std::ofstream(File("sums.txt")) << "1 + 1 = 2\n12 * 3 = 36\n";
  const Json tasks =
      Ask({"--tasks", File("exact.jsonl"), "--equations", File("sums.txt")})["tasks"];
  EXPECT_EQ(tasks["wrong"]["exact"]["accuracy"], 0);
  EXPECT_EQ(tasks["1-digit +"]["exact"]["n"], 1);
  EXPECT_EQ(tasks["2-digit *"]["exact"]["n"], 1);
  EXPECT_EQ(Ask({"--equations", File("sums.txt"), "--limit", "1"})["tasks"].size(), 1);
}

TEST_F(EvalTest, NamesTheTextAndTheQuestionThatFail) {
  std::ofstream(File("long.jsonl")) << Json({{"question", std::string(500, 'x')}, {"answer", "y"}});
  EXPECT_EQ(Run({"--tasks", File("long.jsonl"), "--model", Model()}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("long.jsonl: line 1"));
  std::ofstream(File("huge.txt")) << std::string((1 << 20) + 1, 'x');
  EXPECT_EQ(Run({File("huge.txt"), "--model", Model()}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("huge.txt: a document has 1048577 bytes, at most 1048576"));
}

TEST_F(EvalTest, PrintsTables) {
  ASSERT_EQ(Run({File("long.txt"), File("short.txt"), "--model", Model(), "--routing"}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("bits/byte"));
  EXPECT_THAT(out_, HasSubstr("mean over tags: "));
  EXPECT_THAT(out_, HasSubstr("least used expert of any layer: "));
}

TEST_F(EvalTest, RefusesWrongUsage) {
  EXPECT_EQ(Run({"--model", Model()}), kExitUsage);
  EXPECT_EQ(Run({"--model", Model(), "--tasks", "x", "--routing"}), kExitUsage);
  EXPECT_EQ(Run({File("long.txt"), "--model", Model(), "--window", "129"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--window is 129, must be 2 to 128"));
  EXPECT_EQ(Run({File("long.txt"), "--model", Model(), "--window", "1"}), kExitUsage);
  EXPECT_EQ(Run({File("long.txt"), "--model", Model(), "--concurrency", "0"}), kExitUsage);
  EXPECT_EQ(Run({File("long.txt"), "--model", Model(), "--heat-map", "/nonexistent/map.svg"}),
            kExitFailed);
  EXPECT_THAT(err_, HasSubstr("--heat-map"));
  EXPECT_EQ(Run({File("absent.txt"), "--model", Model()}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("absent.txt"));
}

}  // namespace
}  // namespace gatefold::cli

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/eval/documents.h"
#include "cli/eval/progress_bar.h"
#include "cli/eval/scorer.h"
#include "cli/eval/tasks.h"
#include "gatefold/checkpoint/temp_dir.h"

namespace gatefold::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(Documents, AreSplitAtTheSeparatorAndTaggedByFile) {
  const TempDir dir;
  dir.Write("b.txt", "one\n<|end|>\n\n<|end|>\ntwo <|end|>\nthree\n<|end|>\n");
  dir.Write("a.txt", "no end");
  dir.Write("c.md", "not a text");
  const auto texts = ReadTaggedTexts({dir.path()}, "<|end|>");
  ASSERT_TRUE(texts.ok()) << texts.status();
  ASSERT_EQ(texts->size(), 2);
  EXPECT_EQ((*texts)[0].tag, "a");
  EXPECT_THAT((*texts)[0].documents, ElementsAre("no end"));
  EXPECT_EQ((*texts)[1].tag, "b");
  EXPECT_THAT((*texts)[1].documents, ElementsAre("one\n", "two <|end|>\nthree\n"));
  EXPECT_EQ((*texts)[1].n_bytes(), 22);
}

TEST(Documents, KeepEveryByteWithoutASeparator) {
  const TempDir dir;
  dir.Write("a.txt", "x\n<|end|>\ny");
  const auto texts = ReadTaggedTexts({dir.File("a.txt")}, "");
  ASSERT_TRUE(texts.ok()) << texts.status();
  EXPECT_THAT((*texts)[0].documents, ElementsAre("x\n<|end|>\ny"));
}

TEST(Documents, SayWhatIsWrong) {
  const TempDir dir, empty, other;
  dir.Write("bad.txt", "fine\nnot \xff fine\n");
  dir.Write("nothing.txt", " \n<|end|>\n");
  dir.Write("twice.txt", "x");
  other.Write("twice.txt", "y");
  const auto error = [](const std::vector<std::string>& paths) {
    return std::string(ReadTaggedTexts(paths, "<|end|>").status().message());
  };
  EXPECT_THAT(error({dir.File("bad.txt")}), HasSubstr("bad.txt: line 2 is not UTF-8"));
  EXPECT_THAT(error({dir.File("nothing.txt")}), HasSubstr("tag \"nothing\" has no text"));
  EXPECT_THAT(error({dir.File("absent.txt")}), HasSubstr("absent.txt: cannot be read"));
  EXPECT_THAT(error({empty.path()}), HasSubstr("no *.txt files"));
  EXPECT_THAT(error({dir.File("twice.txt"), other.File("twice.txt")}),
              HasSubstr("another file of the tag \"twice\""));
}

TEST(Tasks, AreReadWithAndWithoutChoices) {
  const TempDir dir;
  dir.Write("quiz.jsonl", R"({"tag":"t","question":"q?","choices":["a","b"],"answer":1})"
                          "\n\n"
                          R"({"question":"r?","choices":["x","y"],"answer":"x"})"
                          "\n"
                          R"({"question":"s","answer":"z"})");
  const auto items = ReadTasks(dir.File("quiz.jsonl"));
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 3);
  EXPECT_EQ((*items)[0].tag, "t");
  EXPECT_EQ((*items)[0].answer_index, 1);
  EXPECT_EQ((*items)[1].tag, "quiz");
  EXPECT_EQ((*items)[1].answer_index, 0);
  EXPECT_TRUE((*items)[2].choices.empty());
  EXPECT_EQ((*items)[2].answer, "z");
}

TEST(Tasks, NameLineAndField) {
  const auto error = [](const std::string& line) {
    const TempDir dir;
    dir.Write("t.jsonl", "{\"question\":\"q\",\"answer\":\"a\"}\n" + line);
    return std::string(ReadTasks(dir.File("t.jsonl")).status().message());
  };
  EXPECT_THAT(error("nonsense"), HasSubstr("line 2"));
  EXPECT_THAT(error("[]"), HasSubstr("line 2: not a JSON object"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a","b"],"answer":)" + std::string(200000, '[') +
                    std::string(200000, ']') + "}"),
              HasSubstr("line 2"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a","b"],"answer":1.5})"),
              HasSubstr("or its index"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a","a"],"answer":1})"), HasSubstr("twice"));
  EXPECT_THAT(error(R"({"answer":"a"})"), HasSubstr("question is missing"));
  EXPECT_THAT(error(R"({"question":"q"})"), HasSubstr("answer is missing"));
  EXPECT_THAT(error(R"({"question":5,"answer":"a"})"), HasSubstr("question must be a string"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a"],"answer":0})"), HasSubstr("2 to 64"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a",7],"answer":0})"), HasSubstr("strings"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a","b"],"answer":2})"),
              HasSubstr("answer is 2, must be 0 to 1"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a","b"],"answer":-1})"), HasSubstr("-1"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a","b"],"answer":"c"})"),
              HasSubstr("none of the choices"));
  EXPECT_THAT(error(R"({"question":"q","choices":["a","b"]})"), HasSubstr("answer is missing"));
}

TEST(Tasks, EquationsBecomeQuestions) {
  const TempDir dir;
  dir.Write("sums.txt", "37 + 45 = 82\n7 - 12 = -5\nthree plus four is seven\n3 + = 4\n");
  const auto items = ReadEquations(dir.File("sums.txt"));
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 2);
  EXPECT_EQ((*items)[0].tag, "2-digit +");
  EXPECT_EQ((*items)[0].question, "37 + 45 =");
  EXPECT_EQ((*items)[0].answer, "82");
  EXPECT_EQ((*items)[1].answer, "-5");
  dir.Write("none.txt", "no sums\n");
  EXPECT_THAT(std::string(ReadEquations(dir.File("none.txt")).status().message()),
              HasSubstr("no line such as"));
}

TEST(ExpertCounts, CountFromTheFirstNewToken) {
  inference::v1::RoutingTrace trace;
  trace.set_n_tokens(2);
  trace.set_top_k(1);
  trace.add_layer_ids(3);
  trace.add_shard_names("s");
  trace.set_gate_weights(std::string(2 * sizeof(float), '\0'));
  trace.set_shards(std::string(2, '\0'));
  const auto set = [&](uint16_t first, uint16_t second) {
    const uint16_t ids[] = {first, second};
    trace.set_expert_ids(std::string(reinterpret_cast<const char*>(ids), sizeof(ids)));
  };
  ExpertCounts counts;
  set(0, 2);
  ASSERT_TRUE(counts.Add(trace, 0, 4).ok());
  set(1, 2);
  ASSERT_TRUE(counts.Add(trace, 1, 4).ok());
  EXPECT_THAT(counts.layer_ids(), ElementsAre(3));
  EXPECT_THAT(counts.by_layer()[0], ElementsAre(1, 0, 2, 0));
  EXPECT_DOUBLE_EQ(counts.Share(0, 2), 2.0 / 3);
  EXPECT_EQ(counts.SmallestShare(), 0);
  ExpertCounts sum;
  sum.Add(counts);
  sum.Add(counts);
  EXPECT_THAT(sum.by_layer()[0], ElementsAre(2, 0, 4, 0));
  set(0, 4);
  EXPECT_THAT(std::string(counts.Add(trace, 0, 4).message()), HasSubstr("expert 4"));
}

TEST(ProgressLine, TellsShareRateAndTimeLeft) {
  EXPECT_EQ(ProgressLine("texts", "bytes", 500, 2000, absl::Seconds(50), false),
            "texts  25 %  500 of 2000 bytes, 10/s, 2:30 left");
  EXPECT_THAT(ProgressLine("texts", "bytes", 1000, 2000, absl::Seconds(50), true),
              HasSubstr("[###############               ]"));
  EXPECT_EQ(ProgressLine("x", "y", 0, 5, absl::ZeroDuration(), false), "x   0 %  0 of 5 y, 0/s");
}

}  // namespace
}  // namespace gatefold::cli

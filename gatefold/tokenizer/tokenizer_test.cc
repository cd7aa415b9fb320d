#include "gatefold/tokenizer/tokenizer.h"

#include <chrono>

#include "gatefold/checkpoint/temp_dir.h"
#include "gatefold/tokenizer/test_tokenizers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using nlohmann::json;
using testing::ByteLevelJson;
using ::testing::ElementsAre;
using testing::FromJson;
using ::testing::HasSubstr;
using testing::HelloSpmJson;
using testing::Ids;
using ::testing::IsEmpty;

json HelloBytesJson() {
  return ByteLevelJson({{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {"Ġ", "hello"}});
}

TEST(Tokenizer, EncodesBytes) {
  const auto tokenizer = FromJson(HelloBytesJson());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_THAT(Ids(t, "hello hello"), ElementsAre(259, 260));
  EXPECT_THAT(Ids(t, "hell  hello"), ElementsAre(258, ' ', 260));
  EXPECT_THAT(Ids(t, "é\n"), ElementsAre(0xC3, 0xA9, '\n'));
  EXPECT_THAT(Ids(t, "<|end|>he"), ElementsAre(261, 256));
  EXPECT_THAT(Ids(t, ""), IsEmpty());
  EXPECT_EQ(t.vocab_size(), 262);
}

TEST(Tokenizer, DecodesBytesThatFormNoCharacter) {
  const auto tokenizer = FromJson(HelloBytesJson());
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_EQ((*tokenizer)->Decode({259, 0xC3, 0xA9, 0xC3, 'x', 261}, false), "helloé\uFFFDx<|end|>");
  EXPECT_EQ((*tokenizer)->Decode({259, 261, 0xF0}, true), "hello\uFFFD");
  EXPECT_EQ((*tokenizer)->Decode({-1, 262, 1 << 30, 'a'}, true), "a");
}

TEST(Tokenizer, EncodesPiecesWithByteFallback) {
  const auto tokenizer = FromJson(HelloSpmJson());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_THAT(Ids(t, "hello hello"), ElementsAre(268, 268));
  EXPECT_THAT(Ids(t, "  hello"), ElementsAre(269, 268));
  EXPECT_THAT(Ids(t, "héllo"), ElementsAre(264, 3 + 0xC3, 3 + 0xA9, 266, 263));
  EXPECT_THAT(Ids(t, "hello</s> hello"), ElementsAre(268, 2, 259, 268)) << "▁ before each part";
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_EQ(t.Encode("hello").value(), (std::vector<int32_t>{1, 268}));
}

TEST(Tokenizer, DecodesRunsOfByteTokensAsAWhole) {
  const auto tokenizer = FromJson(HelloSpmJson());
  ASSERT_TRUE(tokenizer.ok());
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.Decode({268, 268}, false), "hello hello");
  EXPECT_EQ(t.Decode({3 + 0xC3, 3 + 0xA9}, false), "é");
  EXPECT_EQ(t.Decode({3 + 0xC3, 3 + 0xA9, 3 + 0xFF, 263}, false), "\uFFFD\uFFFD\uFFFDo");
  EXPECT_EQ(t.Decode({1, 268, 2}, true), "hello");
  EXPECT_EQ(t.Decode({1, 268, 2}, false), "<s> hello</s>");
}

TEST(Tokenizer, LeavesSpecialTokensOfUsersAsText) {
  const auto tokenizer = FromJson(HelloBytesJson());
  ASSERT_TRUE(tokenizer.ok());
  const auto ids = (*tokenizer)->Encode("<|end|>", {true, /*parse_special_tokens=*/false});
  ASSERT_TRUE(ids.ok());
  EXPECT_THAT(*ids, ElementsAre('<', '|', 'e', 'n', 'd', '|', '>'));
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8WithThePlace) {
  const auto tokenizer = FromJson(HelloBytesJson());
  ASSERT_TRUE(tokenizer.ok());
  const auto ids = (*tokenizer)->Encode("hello \xC3(");
  EXPECT_TRUE(absl::IsInvalidArgument(ids.status()));
  EXPECT_THAT(ids.status().message(), HasSubstr("byte 6"));
}

TEST(Tokenizer, TellsItsTokensApart) {
  const auto tokenizer = FromJson(HelloSpmJson());
  ASSERT_TRUE(tokenizer.ok());
  const Tokenizer& t = **tokenizer;
  EXPECT_EQ(t.TokenBytes(268), " hello");
  EXPECT_EQ(t.TokenBytes(3 + 0xC3), "\xC3");
  EXPECT_EQ(t.TokenBytes(-5), "");
  EXPECT_TRUE(t.IsSpecial(2));
  EXPECT_FALSE(t.IsSpecial(268));
  EXPECT_FALSE(t.IsSpecial(100000));
  EXPECT_FALSE(t.Knows(270));
  EXPECT_EQ(t.TokenToId("▁hello"), 268);
  EXPECT_EQ(t.TokenToId("nothing"), std::nullopt);
}

// A special token that is looked for in normalised text is spelled, and decoded, normalised.
TEST(Tokenizer, MatchesNormalizedSpecialTokensInNormalizedSpelling) {
  json file = HelloSpmJson();
  file["added_tokens"][1]["normalized"] = true;
  const auto tokenizer = FromJson(file);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(Ids(**tokenizer, "<s>hello"), ElementsAre(1, 260, 261, 266, 263));
  EXPECT_EQ((*tokenizer)->Decode({1, 268}, true), "<s> hello");
}

TEST(Tokenizer, EncodesLongTextsWithoutSpacesInTime) {
  const auto tokenizer = FromJson(HelloSpmJson());
  ASSERT_TRUE(tokenizer.ok());
  std::string text;
  while (text.size() < (1 << 20)) text += "hellohello";
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(Ids(**tokenizer, text).empty());
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

// Each entry damages a good file in one place; the message names the place.
struct Damage {
  const char* patch;
  const char* message;
};
void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.patch; }

class DamagedFile : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedFile, IsRefusedByName) {
  const json file = HelloSpmJson().patch(json::array({json::parse(GetParam().patch)}));
  const auto tokenizer = FromJson(file);
  ASSERT_FALSE(tokenizer.ok()) << GetParam().patch;
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    All, DamagedFile,
    ::testing::Values(
        Damage{R"({"op":"remove","path":"/model"})", "model: missing"},
        Damage{R"({"op":"replace","path":"/model","value":[]})", "model: not an object"},
        Damage{R"({"op":"replace","path":"/model/type","value":"Unigram"})", "Unigram"},
        Damage{R"({"op":"remove","path":"/model/merges"})", "model.merges: missing"},
        Damage{R"({"op":"replace","path":"/model/merges/1","value":["▁h","x"]})",
               "model.merges[1]: \"x\" is not in vocab"},
        Damage{R"({"op":"replace","path":"/model/merges/1","value":["l","e"]})",
               "model.merges[1]: \"le\" is not in vocab"},
        Damage{R"({"op":"replace","path":"/model/merges/1","value":"a b c"})", "model.merges[1]"},
        Damage{R"({"op":"replace","path":"/model/merges/1","value":7})", "model.merges[1]"},
        Damage{R"({"op":"replace","path":"/model/vocab/h","value":261})", "id 261"},
        Damage{R"({"op":"replace","path":"/model/vocab/h","value":-1})", "id -1"},
        Damage{R"({"op":"replace","path":"/model/vocab/h","value":2000000000})", "id 2000000000"},
        Damage{R"({"op":"replace","path":"/model/vocab/h","value":1e300})", "id -1"},
        Damage{R"({"op":"replace","path":"/model/vocab/h","value":"x"})", "id -1"},
        Damage{R"({"op":"replace","path":"/model/unk_token","value":"?"})", "model.unk_token"},
        Damage{R"({"op":"add","path":"/model/dropout","value":0.1})", "dropout"},
        Damage{R"({"op":"add","path":"/model/end_of_word_suffix","value":"</w>"})",
               "end_of_word_suffix"},
        Damage{R"({"op":"replace","path":"/model/byte_fallback","value":1})",
               "model.byte_fallback"},
        Damage{R"({"op":"replace","path":"/added_tokens/0/id","value":1})", "id 1"},
        Damage{R"({"op":"replace","path":"/added_tokens/0/id","value":-7})", "added_tokens[0].id"},
        Damage{R"({"op":"remove","path":"/added_tokens/0/content"})", "added_tokens[0].content"},
        Damage{R"({"op":"replace","path":"/added_tokens/0/special","value":"yes"})",
               "added_tokens[0].special"},
        Damage{R"({"op":"replace","path":"/normalizer/type","value":"BertNormalizer"})",
               "BertNormalizer"},
        Damage{R"({"op":"replace","path":"/pre_tokenizer","value":{"type":"X"}})",
               "pre-tokenizer X"},
        Damage{R"({"op":"replace","path":"/decoder/decoders/0/type","value":"WordPiece"})",
               "WordPiece"},
        Damage{R"({"op":"replace","path":"/decoder/decoders/3/stop","value":1})", "Strip.stop"},
        Damage{R"({"op":"replace","path":"/post_processor/special_tokens/<s>/ids","value":[999]})",
               "special_tokens.<s>.ids"},
        Damage{R"({"op":"remove","path":"/post_processor/special_tokens"})", "special_tokens"},
        Damage{R"({"op":"remove","path":"/post_processor/single/1"})", "single"}));

TEST(Tokenizer, RefusesDocumentsThatAreNoTokenizers) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("[]"), std::string("{\"model\":\"\xFF\"}"),
        std::string(100000, '['), std::string("{\"model\":{\"vocab\":{\"\\ud800\":0}}}")}) {
    EXPECT_FALSE(Tokenizer::FromJson(text).ok());
  }
}

TEST(Tokenizer, NamesItsFileInErrors) {
  EXPECT_EQ(Tokenizer::FromJson("[]").status().message(), "tokenizer.json: not an object");
  EXPECT_EQ(
      Tokenizer::FromJson(R"({"model": {"type": "Unigram", "vocab": []}})").status().message(),
      "tokenizer.json: model: model Unigram is not supported");
}

TEST(TokenizerLoad, TakesNamesFromTheConfig) {
  TempDir dir;
  dir.Write("tokenizer.json", HelloBytesJson().dump());
  dir.Write("tokenizer_config.json", R"({"bos_token": null, "eos_token": {"content": "<|end|>"}})");
  const auto tokenizer = Tokenizer::Load(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos_id(), std::nullopt);
  EXPECT_THAT((*tokenizer)->eos_ids(), ElementsAre(261));
}

TEST(TokenizerLoad, SaysWhichFilesItLookedFor) {
  TempDir dir;
  const auto tokenizer = Tokenizer::Load(dir.path());
  EXPECT_TRUE(absl::IsNotFound(tokenizer.status()));
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.model"));
}

}  // namespace
}  // namespace gatefold

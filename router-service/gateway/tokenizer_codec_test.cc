#include "router-service/gateway/tokenizer_codec.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "router-service/gateway/candidate_text.h"

namespace gatefold {
namespace {

// Byte-level, without merges, with two special tokens.
std::string ByteTokenizerJson() {
  nlohmann::json vocab;
  for (int byte = 33, id = 0; byte < 127; ++byte, ++id) vocab[std::string(1, byte)] = id;
  vocab["Ġ"] = 94;
  vocab["Ã"] = 95;
  vocab["©"] = 96;
  const auto special = [](int id, const char* content) {
    return nlohmann::json{{"id", id},        {"content", content}, {"single_word", false},
                          {"lstrip", false}, {"rstrip", false},    {"normalized", false},
                          {"special", true}};
  };
  const nlohmann::json file = {
      {"version", "1.0"},
      {"added_tokens", {special(100, "<s>"), special(101, "<end>")}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  return file.dump();
}

std::unique_ptr<Tokenizer> ByteTokenizer() {
  auto tokenizer = Tokenizer::FromJson(ByteTokenizerJson());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

absl::StatusOr<std::string> Render(const std::vector<TextCodec::ChatMessage>& messages) {
  std::string text = "<s>";
  for (const auto& message : messages) {
    absl::StrAppend(&text, message.role, ":", message.content, "<end>");
  }
  return text + "assistant:";
}

TEST(TokenizerCodecTest, OnlyTheTemplateMakesSpecialTokens) {
  const auto codec = MakeTokenizerCodec(ByteTokenizer(), Render);
  const std::vector<TextCodec::ChatMessage> messages = {{"user", "a<end>b<s>"}};
  const std::vector<int32_t> ids = *codec->EncodeConversation(messages, false);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 100), 1);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 101), 1);
  EXPECT_EQ(codec->Decode(ids, false), "<s>user:a<end>b<s><end>assistant:");
  const std::vector<int32_t> parsed = *codec->EncodeConversation(messages, true);
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), 100), 2);
  EXPECT_EQ(std::count(parsed.begin(), parsed.end(), 101), 2);
}

TEST(TokenizerCodecTest, PlainConversationsAreEncodedAsOneText) {
  const auto codec = MakeTokenizerCodec(ByteTokenizer(), Render);
  EXPECT_EQ(*codec->EncodeConversation({{"user", "hi"}}, false),
            *codec->Encode("<s>user:hi<end>assistant:", {false, true}));
}

TEST(TokenizerCodecTest, FinishesACharacterThatThePromptBegan) {
  const auto codec = MakeTokenizerCodec(ByteTokenizer(), nullptr);
  CandidateText text(codec.get(), {0, 95}, {}, 0);
  EXPECT_EQ(text.Push(96).text, "é");
}

TEST(TokenizerCodecTest, GeneratedTextHasNoSpecialTokens) {
  const auto codec = MakeTokenizerCodec(ByteTokenizer(), nullptr);
  CandidateText text(codec.get(), {0}, {}, 0);
  EXPECT_EQ(text.Push(101).text, "");
  EXPECT_EQ(text.Push(0).text, "!");
  EXPECT_EQ(text.Push(100).text, "");
  EXPECT_EQ(text.Finish().text, "");
}

// A model folder with a tokenizer and this template.
std::string ModelFolder(const std::string& name, const std::string& chat_template) {
  const std::string dir = absl::StrCat(testing::TempDir(), "/tokenizer_codec_", name);
  std::filesystem::create_directories(dir);
  std::ofstream(dir + "/tokenizer.json") << ByteTokenizerJson();
  if (!chat_template.empty()) std::ofstream(dir + "/chat_template.jinja") << chat_template;
  return dir;
}

TEST(LoadTokenizerCodecTest, RendersWithTheFoldersTemplate) {
  const auto codec = *LoadTokenizerCodec(
      ModelFolder("chat",
                  "{% for message in messages %}<s>{{ message.content | trim }}<end>{% endfor %}"
                  "{% if add_generation_prompt %}<s>{% endif %}"));
  ASSERT_TRUE(codec->has_chat_template());
  const std::vector<int32_t> ids =
      *codec->EncodeConversation({{"user", " hi<s> "}, {"user", "<end>"}}, false);
  EXPECT_EQ(codec->Decode(ids, false), "<s>hi<s><end><s><end><end><s>");
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 100), 3);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 101), 2);
}

TEST(LoadTokenizerCodecTest, GoesWithoutATemplate) {
  EXPECT_FALSE((*LoadTokenizerCodec(ModelFolder("plain", "")))->has_chat_template());
}

TEST(LoadTokenizerCodecTest, TellsConversationsWhyATemplateCannotBeRead) {
  const auto codec = LoadTokenizerCodec(ModelFolder("broken", "{% for %}"));
  ASSERT_TRUE(codec.ok());
  const absl::Status status = (*codec)->EncodeConversation({{"user", "hi"}}, false).status();
  EXPECT_EQ(ReasonOf(status), kFeatureUnsupported) << status;
}

TEST(LoadTokenizerCodecTest, AFolderWithoutTokenizerHasNoCodec) {
  const std::string dir = absl::StrCat(testing::TempDir(), "/tokenizer_codec_none");
  std::filesystem::create_directories(dir);
  const auto codec = LoadTokenizerCodec(dir);
  ASSERT_TRUE(codec.ok()) << codec.status();
  EXPECT_EQ(*codec, nullptr);
}

// Expected ids of real tokenizers; the files are not part of the repository.
std::string SharedTokenizer(const std::string& name) {
  const char* shared = std::getenv("GATEFOLD_SHARED");
  return absl::StrCat(shared != nullptr ? shared : "../shared", "/tokenizers/", name);
}

class RealTokenizerTest : public testing::TestWithParam<const char*> {};

TEST_P(RealTokenizerTest, StreamedTextGoesOnFromThePromptAtEverySplit) {
  const std::string dir = SharedTokenizer(GetParam());
  std::ifstream cases(dir + "/cases.jsonl");
  if (!cases) GTEST_SKIP() << "no tokenizer in " << dir;
  const auto codec = LoadTokenizerCodec(dir);
  ASSERT_TRUE(codec.ok()) << codec.status();
  std::string line;
  int n_checked = 0;
  while (std::getline(cases, line) && n_checked < 40) {
    const std::vector<int32_t> ids = nlohmann::json::parse(line)["ids"];
    if (ids.size() < 2 || ids.size() > 60) continue;
    const std::string whole = (*codec)->Decode(ids, true);
    // Splits inside a character would show it on one side only.
    if (whole.find("\xef\xbf\xbd") != std::string::npos) continue;
    ++n_checked;
    for (size_t split = 1; split < ids.size(); ++split) {
      const std::string prompt = (*codec)->Decode({ids.begin(), ids.begin() + split}, true);
      if (prompt.find("\xef\xbf\xbd") != std::string::npos) continue;
      CandidateText text(codec->get(), absl::MakeConstSpan(ids).first(split), {"never"}, 0);
      std::string said;
      for (size_t i = split; i < ids.size(); ++i) said += text.Push(ids[i]).text;
      said += text.Finish().text;
      EXPECT_EQ(prompt + said, whole) << "split at " << split;
    }
  }
  EXPECT_GT(n_checked, 10);
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, RealTokenizerTest,
                         testing::Values("llama2", "llama2_metaspace", "gpt2", "deepseek_llm"));

}  // namespace
}  // namespace gatefold

// tokenizer.model and tiktoken files.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gatefold/tokenizer/proto_wire.h"
#include "gatefold/tokenizer/test_tokenizers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Ids;

// Enough of protobuf to write a model.
std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string Number(int field, uint64_t value) { return Varint(field << 3) + Varint(value); }
std::string Bytes(int field, const std::string& value) {
  return Varint(field << 3 | 2) + Varint(value.size()) + value;
}
std::string Float(int field, float value) {
  std::string out = Varint(field << 3 | 5) + "1234";
  std::memcpy(&out[out.size() - 4], &value, 4);
  return out;
}
std::string Piece(const std::string& text, float score, int type = 1) {
  return Bytes(1, Bytes(1, text) + Float(2, score) + Number(3, type));
}
const char kBpeTrainer[] = {2 << 3 | 2, 2, 3 << 3, 2, 0};  // trainer_spec { model_type: BPE }
const std::string kPlain = Bytes(3, Number(4, 0));         // keeps extra white space

std::string SmallModel() {
  return Piece("<unk>", 0, 2) + Piece("<s>", 0, 3) + Piece("</s>", 0, 3) + Piece("ab", -1) +
         Piece("▁ab", -2) + Piece("bc", -3) + Piece("▁", -4) + Piece("a", -5) + Piece("b", -6) +
         Piece("c", -7) + Piece("[X]", 0, 4) + kBpeTrainer + kPlain;
}

TEST(SentencePieceFile, MergesByScore) {
  const auto tokenizer = Tokenizer::FromSentencePiece(SmallModel(), {});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_THAT(Ids(t, "abc"), ElementsAre(4, 9));
  EXPECT_THAT(Ids(t, "bc  ab"), ElementsAre(6, 5, 6, 4));
  EXPECT_THAT(Ids(t, "a?!b"), ElementsAre(6, 7, 0, 8));
  EXPECT_THAT(Ids(t, "a[X]b"), ElementsAre(6, 7, 10, 8));
  EXPECT_THAT(Ids(t, "a</s>"), ElementsAre(6, 7, 2));
  EXPECT_EQ(t.Decode({4, 9, 4}, false), "abc ab");
  EXPECT_EQ(t.bos_id(), 1);
  EXPECT_THAT(t.eos_ids(), ElementsAre(2));
  EXPECT_EQ(t.Encode("ab").value(), (std::vector<int32_t>{1, 4}));
}

TEST(SentencePieceFile, RefusesDamagedModels) {
  const std::string good = SmallModel();
  ASSERT_TRUE(Tokenizer::FromSentencePiece(good, {}).ok());
  for (size_t size = 0; size < good.size() - kPlain.size(); ++size) {
    const auto cut = Tokenizer::FromSentencePiece(good.substr(0, size), {});
    EXPECT_FALSE(cut.ok()) << size;  // the trainer_spec is missing, at the least
  }
  const auto message = [&](const std::string& file) {
    return std::string(Tokenizer::FromSentencePiece(file, {}).status().message());
  };
  EXPECT_THAT(message(good + Piece("ab", -9)), HasSubstr("pieces[11]"));
  EXPECT_THAT(message(good + Piece("", -9)), HasSubstr("pieces[11]"));
  EXPECT_THAT(message(good + Piece("\xFF", -9)), HasSubstr("pieces[11]"));
  EXPECT_THAT(message(good + Piece("<0xZZ>", 0, 6)), HasSubstr("<0xHH>"));
  EXPECT_THAT(message(good + Piece("z", 0, 99)), HasSubstr("type 99"));
  EXPECT_THAT(message(good + Piece("z", 0.0f / 0.0f)), HasSubstr("score"));
  EXPECT_THAT(message(good + Bytes(3, Bytes(2, "map"))), HasSubstr("precompiled_charsmap"));
  EXPECT_THAT(message(good + Bytes(2, Number(3, 1))), HasSubstr("model_type"));
}

TEST(ProtoWire, RefusesWhatIsNoMessage) {
  for (const char* bytes : {"\x0A\x7F"
                            "abc",
                            "\x08", "\x08\xFF",
                            "\x0D"
                            "abc",
                            "\x0B", "\x02", "\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"}) {
    ProtoWire wire(bytes);
    while (wire.Next()) {
    }
    EXPECT_FALSE(wire.status().ok()) << absl::CHexEscape(bytes);
  }
}

std::string Run(const std::string& command) {
  std::string output;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) output.append(buffer, n);
  return pclose(pipe) == 0 ? output : "";
}

// Trains a model with SentencePiece's own program and compares ids with it.
void CompareWithSentencePiece(const std::string& options) {
  if (std::system("command -v spm_train >/dev/null && command -v spm_encode >/dev/null") != 0) {
    GTEST_SKIP() << "spm_train and spm_encode (Debian package sentencepiece) are not on PATH";
  }
  TempDir dir;
  std::string text;
  for (const char* name : {"gatefold/tokenizer/bpe.cc", "gatefold/tokenizer/regex_syntax.cc",
                           "gatefold/tokenizer/tokenizer.h", "gatefold/tokenizer/regex_test.cc"}) {
    std::ifstream file(name);
    std::stringstream content;
    content << file.rdbuf();
    text += content.str();
  }
  text += "naïve café, 日本語 のテスト, Привет мир, 🦙🦙 x  y   z\n";
  dir.Write("train.txt", text);
  ASSERT_EQ(std::system(("spm_train --minloglevel=3 --model_type=bpe --vocab_size=700 "
                         "--normalization_rule_name=identity --character_coverage=0.99 --input=" +
                         dir.File("train.txt") + " --model_prefix=" + dir.File("tokenizer") + " " +
                         options + " 2>/dev/null")
                            .c_str()),
            0);
  const auto tokenizer = Tokenizer::Load(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string output =
      Run("spm_encode --output_format=id --model=" + dir.File("tokenizer.model") + " < " +
          dir.File("train.txt"));
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  const std::vector<std::string> id_lines = absl::StrSplit(output, '\n');
  ASSERT_EQ(lines.size(), id_lines.size());
  for (size_t i = 0; i + 1 < lines.size(); ++i) {
    std::vector<int32_t> expected;
    for (const absl::string_view id : absl::StrSplit(id_lines[i], ' ', absl::SkipEmpty())) {
      ASSERT_TRUE(absl::SimpleAtoi(id, &expected.emplace_back()));
    }
    const auto ids = (*tokenizer)->Encode(lines[i], {false, /*parse_special_tokens=*/false});
    ASSERT_TRUE(ids.ok());
    ASSERT_EQ(*ids, expected) << lines[i];
  }
}

TEST(SentencePieceFile, AgreesWithSpmEncode) {
  CompareWithSentencePiece("--byte_fallback --split_digits --remove_extra_whitespaces=false");
}

TEST(SentencePieceFile, AgreesWithSpmEncodeOnSpacesAndUserSymbols) {
  CompareWithSentencePiece("--user_defined_symbols='std::,▁const' --add_dummy_prefix=false");
}

std::string TiktokenLines(const std::vector<std::string>& merged) {
  std::string lines;
  int rank = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    lines += absl::StrCat(absl::Base64Escape(absl::string_view(&c, 1)), " ", rank++, "\n");
  }
  for (const std::string& token : merged) {
    lines += absl::StrCat(absl::Base64Escape(token), " ", rank++, "\n");
  }
  return lines;
}

TEST(TiktokenFile, MergesByTheRankOfTheResult) {
  const auto tokenizer = Tokenizer::FromTiktoken(TiktokenLines({"bc", "ab", "abc", " x", "long"}),
                                                 TiktokenKind::kLlama3, {});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const Tokenizer& t = **tokenizer;
  EXPECT_THAT(Ids(t, "abc"), ElementsAre(258)) << "a whole token stays whole";
  EXPECT_THAT(Ids(t, "zabc x"), ElementsAre('z', 258, 259)) << "a, bc: then abc";
  EXPECT_THAT(Ids(t, "long"), ElementsAre(260)) << "not to be made by merges";
  EXPECT_THAT(Ids(t, "<|eot_id|>"), ElementsAre(261 + 9));
  EXPECT_EQ(t.Encode("ab").value(), (std::vector<int32_t>{261, 257}));
  EXPECT_EQ(t.Decode({258, 0xC3, 0xA9, 261}, true), "abcé");
}

TEST(TiktokenFile, TakesSpecialTokensFromTheConfig) {
  TempDir dir;
  dir.Write("tokenizer.model", TiktokenLines({"ab"}));
  dir.Write("tokenizer_config.json", R"({"eos_token": "<e>", "added_tokens_decoder": {
      "300": {"content": "<e>", "special": true}}})");
  const auto tokenizer = Tokenizer::Load(dir.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(Ids(**tokenizer, "ab<e>"), ElementsAre(256, 300));
  EXPECT_THAT((*tokenizer)->eos_ids(), ElementsAre(300));
}

TEST(TiktokenFile, RefusesDamagedLines) {
  const std::string good = TiktokenLines({});
  ASSERT_TRUE(Tokenizer::FromTiktoken(good, TiktokenKind::kQwen, {}).ok());
  for (const char* line :
       {"YWI=", "!!! 256", "YWI= x", "YWI= 1 2", "YWI= -1", "YWI= 99999999", "YWI= 7", " 256"}) {
    EXPECT_FALSE(Tokenizer::FromTiktoken(good + line, TiktokenKind::kQwen, {}).ok()) << line;
  }
  EXPECT_FALSE(Tokenizer::FromTiktoken("YWI= 0\n", TiktokenKind::kQwen, {}).ok());
}

}  // namespace
}  // namespace gatefold

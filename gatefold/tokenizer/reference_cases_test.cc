// Real tokenizers against what the reference implementation makes of many texts. They are not part
// of the repository: ../shared/tokenizers, or $GATEFOLD_SHARED/tokenizers.

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gatefold/tokenizer/stream_decoder.h"
#include "gatefold/tokenizer/tokenizer.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace gatefold {
namespace {

using nlohmann::json;

std::string SharedTokenizers() {
  const char* shared = std::getenv("GATEFOLD_SHARED");
  return std::string(shared != nullptr ? shared : "../shared") + "/tokenizers";
}

class ReferenceCases : public ::testing::TestWithParam<const char*> {};

json Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, std::string* joined) {
  StreamDecoder stream(&tokenizer, /*skip_special_tokens=*/false);
  json texts = json::array();
  for (const int32_t id : ids) {
    const std::string text = stream.Push(id);
    *joined += text;
    texts.push_back(text.empty() ? json() : json(text));
  }
  *joined += stream.Finish();
  return texts;
}

TEST_P(ReferenceCases, AreMet) {
  const std::string dir = SharedTokenizers() + "/" + GetParam();
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << dir << " is not there";
  const auto loaded = Tokenizer::Load(dir);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Tokenizer& tokenizer = **loaded;
  std::ifstream file(dir + "/cases.jsonl");
  int n_cases = 0;
  for (std::string line; std::getline(file, line); ++n_cases) {
    const json expected = json::parse(line);
    const std::string text = expected["text"];
    const auto ids = tokenizer.Encode(text, {/*add_special_tokens=*/false});
    const auto ids_with_special = tokenizer.Encode(text);
    ASSERT_TRUE(ids.ok() && ids_with_special.ok()) << text;
    EXPECT_EQ(json(*ids), expected["ids"]) << text;
    EXPECT_EQ(json(*ids_with_special), expected["ids_with_special"]) << text;
    EXPECT_EQ(tokenizer.Decode(*ids, false), expected["decode_keep_special"]) << text;
    EXPECT_EQ(tokenizer.Decode(*ids_with_special, true), expected["decode_skip_special"]) << text;
    std::string joined;
    EXPECT_EQ(Stream(tokenizer, *ids, &joined), expected["stream"]) << text;
    EXPECT_EQ(joined, tokenizer.Decode(*ids, false)) << text;
  }
  EXPECT_GT(n_cases, 100);
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceCases,
                         ::testing::Values("gpt2", "llama2", "llama2_metaspace", "llama3", "qwen2",
                                           "deepseek_llm", "deepseek_coder"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace gatefold

// The model in models/: what its card promises.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace gatefold::cli {
namespace {

using testing::HasSubstr;

constexpr char kModel[] = "models/gatefold-tiny-moe";

Json Ask(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--model", kModel, "-o", "json"});
  std::istringstream in;
  std::ostringstream out, err;
  Interrupts interrupts;
  Console console{in, out, err, false, &interrupts};
  EXPECT_EQ(RunCommand(arguments, {}, &console), 0) << err.str();
  return Json::parse(out.str(), nullptr, false);
}

// What it goes on with. The seed makes it the same every time; greedily it turns in circles.
std::string GoOn(const std::string& prompt) {
  return Ask({"generate", prompt, "--seed", "1", "--max-tokens", "200"})["text"];
}

int CountWords(const std::string& text, const std::vector<std::string>& words) {
  int n = 0;
  for (const absl::string_view word : absl::StrSplit(text, absl::ByAnyChar(" \n.,;:!?'"))) {
    n += std::count(words.begin(), words.end(), std::string(word)) > 0;
  }
  return n;
}

TEST(EmbeddedModel, IsSmall) {
  uintmax_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(kModel)) bytes += file.file_size();
  EXPECT_LE(bytes, 20'000'000);
}

TEST(EmbeddedModel, StaysInTheLanguageOfThePrompt) {
  EXPECT_GE(CountWords(GoOn("Il y avait dans la ville"), {"le", "la", "les", "de", "des", "et",
                                                          "un", "une", "il", "que", "qui", "en"}),
            8);
  EXPECT_GE(
      CountWords(GoOn("Der alte Mann ging durch die Stadt und"),
                 {"der", "die", "das", "und", "ein", "er", "in", "zu", "den", "nicht", "mit"}),
      8);
  const std::string code = GoOn("/*\n** Free the memory held by the object.\n*/\nstatic void");
  EXPECT_THAT(code, HasSubstr("("));
  EXPECT_THAT(code, HasSubstr(";"));
}

TEST(EmbeddedModel, AddsTwoDigits) {
  int n_right = 0;
  for (const auto& [a, b] : std::vector<std::pair<int, int>>{
           {37, 45}, {12, 34}, {99, 11}, {58, 67}, {20, 80}, {73, 19}, {64, 28}, {41, 50}}) {
    const std::string text = Ask({"generate", absl::StrCat(a, " + ", b, " ="), "--temperature", "0",
                                  "--max-tokens", "6"})["text"];
    n_right += text.starts_with(absl::StrCat(" ", a + b, "\n"));
  }
  EXPECT_GE(n_right, 4);
}

// The bars of its card, on the held-out text that is not part of the repository.
TEST(EmbeddedModel, IsAsGoodAsItsCardSays) {
  constexpr char kTexts[] = "../shared/corpus/heldout";
  if (!std::filesystem::exists(kTexts)) GTEST_SKIP() << kTexts << " is not there";
  const Json json = Ask({"eval", kTexts, "--routing"});
  EXPECT_LT(json.at("texts").at("mean_bits_per_byte").get<double>(),
            1.456);  // the dense twin of equal active size
  EXPECT_GT(json.at("routing").at("smallest_share").get<double>(), 0.02);
}

TEST(EmbeddedModel, UsesItsExperts) {
  // English and code only, which is not all that it was trained on.
  const Json json = Ask({"eval", "docs/architecture.md", "cli/command.cc", "--routing"});
  for (const Json& layer : json["routing"]["all"]) {
    const auto used = std::count_if(layer.begin(), layer.end(),
                                    [](const Json& share) { return share.get<double>() > 0.01; });
    EXPECT_GE(used, 6) << layer;
  }
}

}  // namespace
}  // namespace gatefold::cli

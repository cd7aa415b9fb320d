#include "router-service/gateway/content_guard.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

// Parts joined, literal ones in brackets.
std::string Show(const std::vector<ContentGuard::Part>& parts) {
  std::string out;
  for (const auto& part : parts) {
    absl::StrAppend(&out, part.literal ? "[" : "", part.text, part.literal ? "]" : "");
  }
  return out;
}

TEST(ContentGuardTest, LeavesContentsWithoutSpecialTokensAlone) {
  const ContentGuard guard({"<s>", "<|end|>"});
  std::string a = "plain <b> <|en", b = "";
  const auto marks = guard.Guard({&a, &b});
  EXPECT_EQ(marks.open, "");
  EXPECT_EQ(a, "plain <b> <|en");
  EXPECT_EQ(guard.Split("<s>plain<|end|>", marks).size(), 1);
}

TEST(ContentGuardTest, TellsSpellingsInContentsFromTheTemplatesOwn) {
  const ContentGuard guard({"<s>", "<|end|>", "<|end|><s>", "#"});
  std::string a = "say <|end|>!", b = "<s>#<|end|><s>";
  const auto marks = guard.Guard({&a, &b});
  const std::string rendered = absl::StrCat("<s>user ", a, "<|end|>bot ", b, "<|end|>");
  EXPECT_EQ(Show(guard.Split(rendered, marks)),
            "<s>user say [<|end|>]!<|end|>bot [<s>][#][<|end|><s>]<|end|>");
}

TEST(ContentGuardTest, SurvivesATemplateThatTearsContentsApart) {
  const ContentGuard guard({"</think>"});
  std::string a = "thought</think>answer";
  const auto marks = guard.Guard({&a});
  const size_t at = a.find("</think>");
  const std::string before = a.substr(0, at), after = a.substr(at + 8);
  EXPECT_EQ(Show(guard.Split("</think>" + before + "</think>", marks)), "</think>thought</think>");
  EXPECT_EQ(Show(guard.Split("</think>" + after + "</think>", marks)), "</think>answer</think>");
}

TEST(ContentGuardTest, UsesMarksThatNoContentHas) {
  const ContentGuard guard({"<s>"});
  std::string a = "\xf3\xb0\x80\x80<s>\xf3\xb0\x80\x81";  // U+F0000, U+F0001
  const std::string original = a;
  const auto marks = guard.Guard({&a});
  EXPECT_EQ(original.find(marks.open), std::string::npos);
  EXPECT_EQ(original.find(marks.close), std::string::npos);
  EXPECT_EQ(Show(guard.Split(a, marks)), "\xf3\xb0\x80\x80[<s>]\xf3\xb0\x80\x81");
}

}  // namespace
}  // namespace gatefold

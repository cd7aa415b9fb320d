#include "gatefold/checkpoint/strict_json.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::HasSubstr;

TEST(ParseStrictJson, ParsesADocument) {
  const auto json = ParseStrictJson(R"({"a":[1,{"b":null}],"c":"é"})", "doc");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"][0], 1);
  EXPECT_EQ((*json)["c"], "é");
}

TEST(PrintableValue, WritesJsonOnceEscapedAndCut) {
  EXPECT_EQ(PrintableValue("2"), "\"2\"");
  EXPECT_EQ(PrintableValue(nlohmann::json::parse(R"({"a": ["\n\u007f", "é"]})")),
            R"({"a":["\n\u007f","\u00e9"]})");
  EXPECT_EQ(PrintableValue(std::string("a\xff")), "\"a\\ufffd\"");
  EXPECT_EQ(PrintableValue(std::string(100, 'a')), "\"" + std::string(79, 'a') + "...");
}

TEST(ParseStrictJson, RefusesDuplicateKeysAtAnyDepth) {
  const auto json = ParseStrictJson(R"({"a":[{"b":1,"\u0062":2}]})", "doc");
  EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(json.status().message()), HasSubstr("doc: key \"b\" appears twice"));
  EXPECT_TRUE(ParseStrictJson(R"([{"b":1},{"b":2}])", "doc").ok());
}

TEST(ParseStrictJson, RefusesWhatIsNotJson) {
  for (const std::string& text :
       {std::string(), std::string("{"), std::string("{\"a\":NaN}"), std::string("{\"a\":1e999}"),
        std::string("{}\0", 3), std::string("\"\xff\""), std::string("{} x"),
        std::string("[1,]")}) {
    EXPECT_EQ(ParseStrictJson(text, "doc").status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(ParseStrictJson, BoundsBytesDepthAndValues) {
  const JsonLimits limits = {.max_bytes = 1000, .max_depth = 3, .max_values = 10};
  EXPECT_TRUE(ParseStrictJson("[[[1]]]", "doc", limits).ok());
  const auto exhausted = absl::StatusCode::kResourceExhausted;
  EXPECT_EQ(ParseStrictJson("[[[[1]]]]", "doc", limits).status().code(), exhausted);
  EXPECT_EQ(ParseStrictJson("[1,2,3,4,5,6,7,8,9,10]", "doc", limits).status().code(), exhausted);
  EXPECT_EQ(ParseStrictJson(std::string(1001, ' '), "doc", limits).status().code(), exhausted);
  EXPECT_EQ(ParseStrictJson(std::string(100'000, '['), "doc").status().code(), exhausted);
}

TEST(PrintableName, EscapesAndCuts) {
  EXPECT_EQ(PrintableName("a\n\x1b"), "a\\n\\x1b");
  EXPECT_EQ(PrintableName(std::string(81, 'a')), std::string(80, 'a') + "...");
}

}  // namespace
}  // namespace gatefold

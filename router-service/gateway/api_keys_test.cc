#include "router-service/gateway/api_keys.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::HasSubstr;

const std::string kZeros(64, '0');

std::string Refusal(const std::string& text) {
  return std::string(ParseApiKeys(text).status().message());
}

TEST(ApiKeysTest, HashesWithSha256) {  // FIPS 180-2, "abc"
  const ApiKeyHash hash = HashApiKey("abc");
  EXPECT_EQ(absl::BytesToHexString(
                absl::string_view(reinterpret_cast<const char*>(hash.data()), hash.size())),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ApiKeysTest, MakesKeysThatDiffer) {
  const std::string key = NewApiKey();
  EXPECT_EQ(key.size(), 3u + 43u);
  EXPECT_EQ(key.substr(0, 3), "gf_");
  EXPECT_NE(key, NewApiKey());
}

TEST(ApiKeysTest, ReadsWhatItWrites) {
  ApiKey alice;
  alice.name = "alice";
  alice.hash = HashApiKey("a");
  alice.requests_per_minute = 60;
  alice.tokens_per_minute = 90000;
  alice.max_priority = 0;
  ApiKey ops;
  ops.name = "ops-1.eu_west";
  ops.hash = HashApiKey("o");
  ops.admin = ops.revoked = true;
  const auto keys = ParseApiKeys(
      absl::StrCat("# two keys\n\n", FormatApiKey(alice), "\t# hers\r\n", FormatApiKey(ops)));
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(*keys, (std::vector<ApiKey>{alice, ops}));
}

TEST(ApiKeysTest, RefusesWhatItDoesNotKnowNamingTheLine) {
  const std::string good = absl::StrCat("a sha256:", kZeros);
  EXPECT_THAT(Refusal("\n" + good + " adminn"), HasSubstr("line 2: \"adminn\" is not one of"));
  EXPECT_THAT(Refusal(good + " tokens_per_minute=0"), HasSubstr("line 1: a limit is \"0\""));
  EXPECT_THAT(Refusal(good + " tokens_per_minute=9999999999999999999"), HasSubstr("a limit is"));
  EXPECT_THAT(Refusal(good + " max_priority=-1"), HasSubstr("must be within 0 and 100"));
  EXPECT_THAT(Refusal(good + " max_priority=101"), HasSubstr("must be within 0 and 100"));
  EXPECT_THAT(Refusal(good + " max_priority=3 admin max_priority=90"),
              HasSubstr("max_priority is there twice"));
  EXPECT_THAT(Refusal("a gf_secret"), HasSubstr("sha256:"));
  EXPECT_THAT(Refusal("a sha256:" + kZeros.substr(1)), HasSubstr("64 hexadecimal"));
  EXPECT_THAT(Refusal("a sha256:" + kZeros.substr(1) + "g"), HasSubstr("64 hexadecimal"));
  EXPECT_THAT(Refusal("a"), HasSubstr("sha256:"));
  EXPECT_THAT(Refusal(good + "\n" + good), HasSubstr("line 2: the name a is there twice"));
  EXPECT_THAT(Refusal(good + "\nb sha256:" + kZeros), HasSubstr("line 2: the key of b"));
  EXPECT_THAT(Refusal("a\"b sha256:" + kZeros), HasSubstr("name"));
  EXPECT_THAT(Refusal("# nobody\n"), HasSubstr("no key"));
}

// A key itself in the place of its hash must not come out in a message that is logged.
TEST(ApiKeysTest, DoesNotRepeatAKeyThatStandsWhereItsHashShould) {
  EXPECT_THAT(Refusal("a gf_secret"), ::testing::Not(HasSubstr("gf_secret")));
}

TEST(ApiKeysTest, RefusesMoreKeysThanItHoldsRoomFor) {
  std::string text;
  for (size_t i = 0; i <= kMaxApiKeys; ++i) {
    ApiKey key;
    key.name = absl::StrCat("k", i);
    key.hash = HashApiKey(key.name);
    absl::StrAppend(&text, FormatApiKey(key), "\n");
  }
  EXPECT_THAT(Refusal(text), HasSubstr(absl::StrCat("more than ", kMaxApiKeys)));
}

}  // namespace
}  // namespace gatefold

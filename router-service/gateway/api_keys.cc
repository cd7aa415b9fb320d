#include "router-service/gateway/api_keys.h"

#include <openssl/sha.h>

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "gatefold/base/status_macros.h"
#include "router-service/gateway/random_bits.h"

namespace gatefold {
namespace {

constexpr size_t kMaxNameBytes = 64;

absl::Status Bad(absl::string_view what) { return absl::InvalidArgumentError(what); }

absl::StatusOr<ApiKeyHash> ParseHash(absl::string_view text) {
  ApiKeyHash hash;
  const bool hex = absl::ConsumePrefix(&text, "sha256:") && text.size() == 2 * hash.size() &&
                   std::all_of(text.begin(), text.end(), absl::ascii_isxdigit);
  if (!hex) return Bad("the second word must be sha256: and 64 hexadecimal digits");
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), hash.begin());
  return hash;
}

absl::Status ParseLimit(absl::string_view word, int64_t least, int64_t most, int64_t* limit) {
  if (!absl::SimpleAtoi(word, limit) || *limit < least || *limit > most) {
    return Bad(absl::StrCat("a limit is \"", word, "\", must be within ", least, " and ", most));
  }
  return absl::OkStatus();
}

absl::Status ParseProperty(absl::string_view word, ApiKey* key) {
  if (word == "admin") {
    key->admin = true;
    return absl::OkStatus();
  }
  if (word == "revoked") {
    key->revoked = true;
    return absl::OkStatus();
  }
  if (absl::ConsumePrefix(&word, "requests_per_minute=")) {
    return ParseLimit(word, 1, kMaxPerMinute, &key->requests_per_minute);
  }
  if (absl::ConsumePrefix(&word, "tokens_per_minute=")) {
    return ParseLimit(word, 1, kMaxPerMinute, &key->tokens_per_minute);
  }
  if (absl::ConsumePrefix(&word, "max_priority=")) {
    int64_t limit = 0;
    GF_RETURN_IF_ERROR(ParseLimit(word, 0, kMaxKeyPriority, &limit));
    key->max_priority = static_cast<int32_t>(limit);
    return absl::OkStatus();
  }
  return Bad(absl::StrCat("\"", word,
                          "\" is not one of admin, revoked, requests_per_minute=N, "
                          "tokens_per_minute=N, max_priority=N"));
}

absl::StatusOr<ApiKey> ParseLine(const std::vector<absl::string_view>& words) {
  ApiKey key;
  GF_RETURN_IF_ERROR(CheckApiKeyName(words[0]));
  key.name = std::string(words[0]);
  GF_ASSIGN_OR_RETURN(key.hash, ParseHash(words.size() > 1 ? words[1] : ""));
  std::set<absl::string_view> given;
  for (size_t i = 2; i < words.size(); ++i) {
    const absl::string_view property = words[i].substr(0, words[i].find('='));
    if (!given.insert(property).second) return Bad(absl::StrCat(property, " is there twice"));
    GF_RETURN_IF_ERROR(ParseProperty(words[i], &key));
  }
  return key;
}

}  // namespace

absl::Status CheckApiKeyName(absl::string_view name) {
  const bool good = !name.empty() && name.size() <= kMaxNameBytes &&
                    std::all_of(name.begin(), name.end(), [](unsigned char c) {
                      return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_';
                    });
  if (good) return absl::OkStatus();
  return Bad(absl::StrCat("a key's name must be 1 to ", kMaxNameBytes,
                          " letters, digits, dots, dashes and underscores"));
}

ApiKeyHash HashApiKey(absl::string_view key) {
  ApiKeyHash hash;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

std::string NewApiKey() {
  uint64_t bits[4];
  for (uint64_t& word : bits) word = RandomBits();
  std::string text = absl::WebSafeBase64Escape(
      absl::string_view(reinterpret_cast<const char*>(bits), sizeof bits));
  return absl::StrCat("gf_", absl::StripSuffix(text, "="));
}

absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(absl::string_view text) {
  std::vector<ApiKey> keys;
  std::set<std::string> names;
  std::set<ApiKeyHash> hashes;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    line = line.substr(0, line.find('#'));
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    absl::StatusOr<ApiKey> key = ParseLine(words);
    absl::Status status = key.status();
    if (status.ok() && !names.insert(key->name).second) {
      status = Bad(absl::StrCat("the name ", key->name, " is there twice"));
    } else if (status.ok() && !hashes.insert(key->hash).second) {
      status = Bad(absl::StrCat("the key of ", key->name, " is there twice"));
    } else if (status.ok() && keys.size() == kMaxApiKeys) {
      status = Bad(absl::StrCat("there are more than ", kMaxApiKeys, " keys"));
    }
    if (!status.ok()) return Annotate(status, absl::StrCat("line ", line_number));
    keys.push_back(*std::move(key));
  }
  if (keys.empty()) return Bad("there is no key in it");
  return keys;
}

std::string FormatApiKey(const ApiKey& key) {
  std::string line =
      absl::StrCat(key.name, " sha256:",
                   absl::BytesToHexString(absl::string_view(
                       reinterpret_cast<const char*>(key.hash.data()), key.hash.size())));
  if (key.admin) absl::StrAppend(&line, " admin");
  if (key.revoked) absl::StrAppend(&line, " revoked");
  if (key.requests_per_minute > 0) {
    absl::StrAppend(&line, " requests_per_minute=", key.requests_per_minute);
  }
  if (key.tokens_per_minute > 0) {
    absl::StrAppend(&line, " tokens_per_minute=", key.tokens_per_minute);
  }
  if (key.max_priority.has_value()) absl::StrAppend(&line, " max_priority=", *key.max_priority);
  return line;
}

}  // namespace gatefold

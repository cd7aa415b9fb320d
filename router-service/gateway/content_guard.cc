#include "router-service/gateway/content_guard.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace gatefold {
namespace {

// A character of plane 15's private use area, as UTF-8.
std::string PrivateUse(uint32_t index) {
  const uint32_t code = 0xf0000 + index;
  return {static_cast<char>(0xf0 | (code >> 18)), static_cast<char>(0x80 | ((code >> 12) & 0x3f)),
          static_cast<char>(0x80 | ((code >> 6) & 0x3f)), static_cast<char>(0x80 | (code & 0x3f))};
}

// One that no content has. 65534 candidates cannot all be in a megabyte or two of text.
std::string UnusedMark(const std::vector<std::string*>& contents) {
  uint32_t index = 0;
  const auto used = [&] {
    return std::any_of(contents.begin(), contents.end(), [&](const std::string* content) {
      return absl::StrContains(*content, PrivateUse(index));
    });
  };
  while (used()) ++index;
  return PrivateUse(index);
}

size_t CharacterBytes(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0xc0 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

}  // namespace

ContentGuard::ContentGuard(const std::vector<std::string>& special_tokens) {
  for (const std::string& token : special_tokens) {
    if (!token.empty()) by_first_byte_[static_cast<unsigned char>(token[0])].push_back(token);
  }
}

bool ContentGuard::StartsWithToken(absl::string_view text) const {
  const auto& tokens = by_first_byte_[static_cast<unsigned char>(text[0])];
  return std::any_of(tokens.begin(), tokens.end(), [text](const std::string& token) {
    return absl::StartsWith(text, token);
  });
}

std::string ContentGuard::WithMarks(const std::string& content, absl::string_view mark) const {
  std::string guarded;
  size_t i = 0;
  while (i < content.size()) {
    const absl::string_view rest = absl::string_view(content).substr(i);
    const size_t n = std::min(CharacterBytes(content[i]), rest.size());
    guarded.append(content, i, n);
    // Spellings that overlap are cut too, since the next character is looked at as well.
    if (StartsWithToken(rest)) guarded.append(mark.data(), mark.size());
    i += n;
  }
  return guarded;
}

std::string ContentGuard::Guard(std::vector<std::string*> contents) const {
  const bool needed =
      std::any_of(contents.begin(), contents.end(), [this](const std::string* content) {
        for (size_t i = 0; i < content->size(); ++i) {
          if (StartsWithToken(absl::string_view(*content).substr(i))) return true;
        }
        return false;
      });
  if (!needed) return "";
  const std::string mark = UnusedMark(contents);
  for (std::string* content : contents) *content = WithMarks(*content, mark);
  return mark;
}

std::vector<absl::string_view> ContentGuard::Cut(absl::string_view rendered,
                                                 absl::string_view mark) {
  std::vector<absl::string_view> parts;
  while (!mark.empty()) {
    const size_t at = rendered.find(mark);
    if (at == absl::string_view::npos) break;
    parts.push_back(rendered.substr(0, at));
    rendered.remove_prefix(at + mark.size());
  }
  parts.push_back(rendered);
  return parts;
}

}  // namespace gatefold

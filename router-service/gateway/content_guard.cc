#include "router-service/gateway/content_guard.h"

#include <algorithm>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace gatefold {
namespace {

// A character of the private use area of plane 15, as UTF-8.
std::string PrivateUse(uint32_t index) {
  const uint32_t code = 0xf0000 + index;
  return {static_cast<char>(0xf0 | (code >> 18)), static_cast<char>(0x80 | ((code >> 12) & 0x3f)),
          static_cast<char>(0x80 | ((code >> 6) & 0x3f)), static_cast<char>(0x80 | (code & 0x3f))};
}

// Two that no content has. A mebibyte of text cannot hold so many that the search takes long.
ContentGuard::Marks UnusedMarks(const std::vector<std::string*>& contents) {
  std::vector<bool> used(65536, false);
  for (const std::string* content : contents) {
    for (size_t i = 0; i + 4 <= content->size(); ++i) {
      const auto* p = reinterpret_cast<const unsigned char*>(content->data()) + i;
      if (p[0] != 0xf3 || p[1] < 0xb0) continue;  // U+F0000 and up
      used[((p[1] & 0xf) << 12 | (p[2] & 0x3f) << 6 | (p[3] & 0x3f)) & 0xffff] = true;
    }
  }
  const auto next_free = [&used](uint32_t index) {
    while (index + 1 < used.size() && used[index]) ++index;
    return index;
  };
  const uint32_t open = next_free(0);
  return {PrivateUse(open), PrivateUse(next_free(open + 1))};
}

}  // namespace

ContentGuard::ContentGuard(const std::vector<std::string>& special_tokens) {
  for (const std::string& token : special_tokens) {
    if (!token.empty()) by_first_byte_[static_cast<unsigned char>(token[0])].push_back(token);
  }
}

size_t ContentGuard::TokenAtStart(absl::string_view text) const {
  size_t longest = 0;
  for (const std::string& token : by_first_byte_[static_cast<unsigned char>(text[0])]) {
    if (token.size() > longest && absl::StartsWith(text, token)) longest = token.size();
  }
  return longest;
}

bool ContentGuard::HasToken(absl::string_view text) const {
  for (; !text.empty(); text.remove_prefix(1)) {
    if (TokenAtStart(text) > 0) return true;
  }
  return false;
}

std::string ContentGuard::WithMarks(absl::string_view content, const Marks& marks) const {
  std::string guarded;
  while (!content.empty()) {
    if (const size_t n = TokenAtStart(content); n > 0) {
      absl::StrAppend(&guarded, marks.open, content.substr(0, n), marks.close);
      content.remove_prefix(n);
    } else {
      guarded.push_back(content[0]);
      content.remove_prefix(1);
    }
  }
  return guarded;
}

ContentGuard::Marks ContentGuard::Guard(const std::vector<std::string*>& contents) const {
  if (std::none_of(contents.begin(), contents.end(),
                   [this](const std::string* content) { return HasToken(*content); })) {
    return {};
  }
  Marks marks = UnusedMarks(contents);
  for (std::string* content : contents) *content = WithMarks(*content, marks);
  return marks;
}

std::vector<ContentGuard::Part> ContentGuard::Split(absl::string_view rendered,
                                                    const Marks& marks) const {
  std::vector<Part> parts;
  if (marks.open.empty()) return {{std::string(rendered), false}};
  const auto append = [&parts](absl::string_view text) {
    if (parts.empty() || parts.back().literal) parts.emplace_back();
    parts.back().text.append(text.data(), text.size());
  };
  while (!rendered.empty()) {
    if (absl::StartsWith(rendered, marks.close)) {
      rendered.remove_prefix(marks.close.size());
    } else if (absl::StartsWith(rendered, marks.open)) {
      rendered.remove_prefix(marks.open.size());
      const size_t n = rendered.empty() ? 0 : TokenAtStart(rendered);
      if (n > 0 && absl::StartsWith(rendered.substr(n), marks.close)) {
        parts.push_back({std::string(rendered.substr(0, n)), true});
        rendered.remove_prefix(n);
      }
    } else {
      append(rendered.substr(0, 1));
      rendered.remove_prefix(1);
    }
  }
  return parts;
}

}  // namespace gatefold

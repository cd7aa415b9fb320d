#include "gatefold/tokenizer/bpe_table.h"

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/base/utf8.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {

absl::Status BpeTable::Add(int32_t id, absl::string_view text) {
  GF_CHECK(id >= 0 && id < texts.size());
  if (text.empty()) return absl::OkStatus();
  if (!texts[id].empty()) {
    return absl::InvalidArgumentError(absl::StrCat("id ", id, " is given to \"",
                                                   PrintableName(texts[id]), "\" and \"",
                                                   PrintableName(text), "\""));
  }
  const auto [it, is_new] = ids.try_emplace(std::string(text), id);
  if (!is_new) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", PrintableName(text), "\" has ids ", it->second, " and ", id));
  }
  texts[id] = std::string(text);
  return absl::OkStatus();
}

void BpeTable::DeriveMerges(const std::vector<int32_t>& ranks) {
  const auto id_of = [this](absl::string_view part) {
    const auto it = ids.find(part);
    if (it != ids.end()) return it->second;
    if (byte_level) return kNoToken;
    size_t end = 0;
    const char32_t c = NextCodePoint(part, &end);
    if (end != part.size()) return kNoToken;
    return parts.try_emplace(c, static_cast<int32_t>(texts.size() + parts.size())).first->second;
  };
  for (int32_t id = 0; id < texts.size(); ++id) {
    if (ranks[id] < 0) continue;
    const absl::string_view text = texts[id];
    for (size_t cut = 0;;) {
      if (byte_level) {
        ++cut;
      } else if (cut < text.size()) {
        NextCodePoint(text, &cut);
      }
      if (cut >= text.size()) break;
      const int32_t left = id_of(text.substr(0, cut));
      if (left == kNoToken) continue;
      const int32_t right = id_of(text.substr(cut));
      if (right != kNoToken) merges.push_back({left, right, id, ranks[id]});
    }
  }
}

}  // namespace gatefold

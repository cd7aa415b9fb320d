#include "gatefold/tokenizer/vocabulary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {

absl::StatusOr<Vocabulary> Vocabulary::ForIds(const std::vector<int64_t>& ids,
                                              absl::string_view list) {
  constexpr int64_t kHoles = 65536;
  const int64_t limit = 2 * static_cast<int64_t>(ids.size()) + kHoles;
  int64_t size = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= limit) {
      return absl::InvalidArgumentError(absl::StrCat(list, ": entry ", i, " has id ", ids[i],
                                                     "; of ", ids.size(),
                                                     " tokens ids go from 0 to ", limit - 1));
    }
    size = std::max(size, ids[i] + 1);
  }
  Vocabulary vocabulary;
  vocabulary.spellings.resize(size);
  vocabulary.ids.reserve(ids.size());
  return vocabulary;
}

absl::Status Vocabulary::Add(int32_t id, absl::string_view spelling) {
  GF_CHECK(id >= 0 && id < spellings.size());
  if (spelling.empty()) return absl::OkStatus();
  if (!spellings[id].empty() && spellings[id] != spelling) {
    return absl::InvalidArgumentError(absl::StrCat("id ", id, " is given to \"",
                                                   PrintableName(spellings[id]), "\" and \"",
                                                   PrintableName(spelling), "\""));
  }
  const auto [it, is_new] = ids.try_emplace(std::string(spelling), id);
  if (!is_new && it->second != id) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", PrintableName(spelling), "\" has ids ", it->second, " and ", id));
  }
  spellings[id] = std::string(spelling);
  return absl::OkStatus();
}

absl::flat_hash_set<std::string> SpecialSpellings(const std::vector<AddedToken>& tokens) {
  absl::flat_hash_set<std::string> special;
  for (const AddedToken& token : tokens) {
    if (token.special) special.insert(token.content);
  }
  return special;
}

}  // namespace gatefold

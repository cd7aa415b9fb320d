#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/added_tokens.h"

namespace gatefold {

// All tokens of a file while it is read: ids to spellings and back.
struct Vocabulary {
  std::vector<std::string> spellings;  // by id; "" for holes
  absl::flat_hash_map<std::string, int32_t> ids;

  // Fits `spellings` to the ids, which come from a file: holes are allowed, but no more of them
  // than a real vocabulary has. InvalidArgument, with the list's name and place, for an id out of
  // range.
  static absl::StatusOr<Vocabulary> ForIds(const std::vector<int64_t>& ids, absl::string_view list);

  // InvalidArgument if the id or the spelling belongs to another token. The same token may come
  // twice.
  absl::Status Add(int32_t id, absl::string_view spelling);
};

// Spellings that decoding can skip.
absl::flat_hash_set<std::string> SpecialSpellings(const std::vector<AddedToken>& tokens);

}  // namespace gatefold

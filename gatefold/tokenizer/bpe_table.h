#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gatefold {

inline constexpr int32_t kNoToken = -1;

// The pair (left, right) becomes `id`. Of the pairs in a text the one of lowest rank goes first,
// the leftmost of equal ones.
struct MergeRule {
  int32_t left;
  int32_t right;
  int32_t id;
  int32_t rank;
};

// What a byte-pair model is made of, whichever kind of file it comes from.
struct BpeTable {
  // What each id stands for in the text to be encoded: bytes if byte_level, else UTF-8. "" for
  // ids that the model never produces.
  std::vector<std::string> texts;
  absl::flat_hash_map<std::string, int32_t> ids;  // the inverse
  std::vector<MergeRule> merges;
  // Characters that are no token but part of one: ids from texts.size() on.
  absl::flat_hash_map<char32_t, int32_t> parts;

  bool byte_level = false;
  bool ignore_merges = false;     // a piece that is a token stays whole
  std::vector<int32_t> byte_ids;  // for characters that are no token: 256, kNoToken allowed
  int32_t unk_id = kNoToken;      // for those without; kNoToken drops them
  bool fuse_unk = false;
  // Unknown characters stay in place while pairs merge, as in SentencePiece, rather than turn into
  // byte tokens or unk first.
  bool unknown_last = false;

  // Sets `texts` and `ids` for one token. InvalidArgument if the id or the text is taken.
  absl::Status Add(int32_t id, absl::string_view text);

  // Fills `merges` and `parts` for models that give ranks to tokens, not to pairs: any two
  // neighbours whose concatenation is a token may merge. `ranks` are by id; negative: never made.
  void DeriveMerges(const std::vector<int32_t>& ranks);
};

}  // namespace gatefold

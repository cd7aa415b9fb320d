#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/normalizer.h"
#include "gatefold/tokenizer/regex.h"

namespace gatefold {

// A token that is found in the text by its spelling, before the model sees any of it.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character stands beside it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // and after it
  bool normalized = false;   // looked for after normalisation, in normalised spelling
  bool special = false;
};

// Finds the longest of a set of strings at a place.
// Threads: safe once built.
class TokenTrie {
 public:
  TokenTrie() { may_start_.fill(false); }
  // The first of equal keys stays.
  void Insert(absl::string_view key, int value);  // value >= 0
  // -1 if none of the keys stands at text[position]; else its value, and its length.
  int LongestAt(absl::string_view text, size_t position, size_t* length) const;
  bool empty() const { return n_nodes_ == 1; }
  // First position from `from` on where a key may begin; text.size() if none.
  size_t NextCandidate(absl::string_view text, size_t from) const;

 private:
  uint32_t n_nodes_ = 1;
  std::array<bool, 256> may_start_;
  absl::flat_hash_map<uint64_t, uint32_t> children_;  // (node << 8 | byte) -> node
  absl::flat_hash_map<uint32_t, int> values_;
};

// All added tokens of a tokenizer, in their two kinds.
// Threads: safe once built.
class AddedTokens {
 public:
  static constexpr int32_t kText = -1;
  struct Part {
    Span span;
    int32_t id;  // kText: not a token
  };

  // InvalidArgument for an empty or overlong content or one that appears twice.
  static absl::StatusOr<AddedTokens> Create(std::vector<AddedToken> tokens,
                                            const Normalizer& normalizer);

  const std::vector<AddedToken>& tokens() const { return tokens_; }
  // The token's spelling in normalised text, which is also how the reference decodes it.
  const std::string& SpellingOf(int index) const { return spellings_[index]; }

  // Cuts `text` into tokens and what lies between them, none of it empty. `normalized` says which
  // kind of token to look for; without `with_special` special tokens stay text.
  void Cut(absl::string_view text, bool normalized, bool with_special,
           std::vector<Part>* parts) const;

 private:
  std::vector<AddedToken> tokens_;
  std::vector<std::string> spellings_;
  TokenTrie raw_, normalized_;
};

}  // namespace gatefold

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/pattern.h"
#include "nlohmann/json.hpp"

namespace gatefold {

// What each id contributes to decoded text, with the decoder's work on single tokens done ahead.
// Threads: safe once built.
class DecodeTable {
 public:
  enum class Rule {
    kSpaced,        // no decoder: tokens with a space between them
    kBytes,         // every token is bytes; together they are UTF-8, more or less
    kText,          // tokens are text, as they stand
    kByteFallback,  // the same, but <0xHH> is a byte, and a run of them is UTF-8 or nothing
  };

  // `decoder` as in a tokenizer.json. `spellings` by id, "" where there is no token; ids whose
  // spelling is in `special` can be skipped. Unimplemented for a decoder that is not supported.
  static absl::StatusOr<DecodeTable> Create(const nlohmann::json& decoder,
                                            const std::vector<std::string>& spellings,
                                            const absl::flat_hash_set<std::string>& special);
  // Tokens that are raw bytes already, for files that have no decoder.
  static DecodeTable OfBytes(const std::vector<std::string>& spellings,
                             const absl::flat_hash_set<std::string>& special);

  Rule rule() const { return rule_; }
  // Up to strip_left() copies of strip_content() are dropped from the front of the whole text.
  const std::string& strip_content() const { return strip_content_; }
  int strip_left() const { return strip_left_; }

  int size() const { return static_cast<int>(tokens_.size()); }
  // The rest needs 0 <= id < size().
  bool Knows(int32_t id) const { return tokens_[id].known; }
  bool Skippable(int32_t id) const { return tokens_[id].skippable; }
  bool IsByte(int32_t id) const { return tokens_[id].is_byte; }  // kByteFallback: Text is the byte
  absl::string_view Text(int32_t id) const { return TextOf(tokens_[id]); }
  // In place of Text() for the first token of a sequence.
  absl::string_view FirstText(int32_t id) const {
    return first_tokens_.empty() ? Text(id) : TextOf(first_tokens_[id]);
  }

 private:
  struct Token {
    uint32_t begin = 0;
    uint32_t size = 0;
    bool known = false;
    bool skippable = false;
    bool is_byte = false;
  };
  struct TokenStep {
    Pattern pattern;
    std::string content;
    bool is_metaspace;  // on the first token `content` is ""
  };

  absl::Status AddSteps(const nlohmann::json& json, const std::string& path);
  absl::Status AddOneStep(const std::string& type, JsonFields* fields);
  void Fill(const std::vector<std::string>& spellings,
            const absl::flat_hash_set<std::string>& special);
  Token MakeToken(const std::string& spelling, bool is_first, RegexScratch* scratch);
  absl::string_view TextOf(const Token& token) const {
    return absl::string_view(chars_.data() + token.begin, token.size);
  }

  Rule rule_ = Rule::kText;
  bool fused_ = false;  // while steps are added: what follows sees one string
  std::vector<TokenStep> steps_;
  std::string strip_content_;
  int strip_left_ = 0;
  std::string chars_;
  std::vector<Token> tokens_;
  std::vector<Token> first_tokens_;  // empty: no different from the others
};

}  // namespace gatefold

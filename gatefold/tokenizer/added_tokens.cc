#include "gatefold/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/char_class.h"

namespace gatefold {
namespace {

// Matching takes time in proportion to the longest token at each place of the text.
constexpr size_t kMaxContentBytes = 1024;

bool WordEndsAt(absl::string_view text, size_t position) {
  if (position == 0) return false;
  size_t begin = PreviousBoundary(text, position);
  return (CharClassOf(NextCodePoint(text, &begin)) & kWord) != 0;
}

bool WordStartsAt(absl::string_view text, size_t position) {
  return position < text.size() && (CharClassOf(NextCodePoint(text, &position)) & kWord) != 0;
}

size_t SkipSpacesBack(absl::string_view text, size_t position, size_t floor) {
  while (position > floor) {
    const size_t begin = PreviousBoundary(text, position);
    size_t next = begin;
    if (!IsSpace(NextCodePoint(text, &next))) break;
    position = begin;
  }
  return position;
}

size_t SkipSpaces(absl::string_view text, size_t position) {
  while (position < text.size()) {
    size_t next = position;
    if (!IsSpace(NextCodePoint(text, &next))) break;
    position = next;
  }
  return position;
}

}  // namespace

void TokenTrie::Insert(absl::string_view key, int value) {
  if (key.empty()) return;
  may_start_[static_cast<uint8_t>(key[0])] = true;
  uint32_t node = 0;
  for (const char c : key) {
    const uint64_t edge = uint64_t{node} << 8 | static_cast<uint8_t>(c);
    const auto [it, is_new] = children_.try_emplace(edge, n_nodes_);
    if (is_new) ++n_nodes_;
    node = it->second;
  }
  values_.try_emplace(node, value);
}

int TokenTrie::LongestAt(absl::string_view text, size_t position, size_t* length) const {
  int value = -1;
  uint32_t node = 0;
  for (size_t i = position; i < text.size(); ++i) {
    const auto child = children_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (const auto found = values_.find(node); found != values_.end()) {
      value = found->second;
      *length = i + 1 - position;
    }
  }
  return value;
}

size_t TokenTrie::NextCandidate(absl::string_view text, size_t from) const {
  while (from < text.size() && !may_start_[static_cast<uint8_t>(text[from])]) ++from;
  return from;
}

absl::StatusOr<AddedTokens> AddedTokens::Create(std::vector<AddedToken> tokens,
                                                const Normalizer& normalizer) {
  AddedTokens added;
  RegexScratch scratch;
  absl::flat_hash_set<std::string> contents;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const AddedToken& token = tokens[i];
    const auto refuse = [&](absl::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat("added_tokens[", i, "].content: ", why));
    };
    if (token.content.empty()) return refuse("empty");
    if (token.content.size() > kMaxContentBytes) {
      return refuse(absl::StrCat(token.content.size(), " bytes; at most ", kMaxContentBytes));
    }
    if (!contents.insert(token.content).second) {
      return refuse(absl::StrCat("\"", PrintableName(token.content), "\" appears twice"));
    }
    std::string spelling = token.content;
    if (token.normalized) GF_RETURN_IF_ERROR(normalizer.Apply(&scratch, &spelling));
    if (spelling.size() > kMaxContentBytes) {
      return refuse(
          absl::StrCat(spelling.size(), " bytes once normalised; at most ", kMaxContentBytes));
    }
    added.spellings_.push_back(std::move(spelling));
  }
  // Two tokens may be the same once normalised; then the special one counts.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i].special != special) continue;
      TokenTrie& trie = tokens[i].normalized ? added.normalized_ : added.raw_;
      trie.Insert(added.spellings_[i], static_cast<int>(i));
    }
  }
  added.tokens_ = std::move(tokens);
  return added;
}

void AddedTokens::Cut(absl::string_view text, bool normalized, bool with_special,
                      std::vector<Part>* parts) const {
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;  // everything before is in `parts`
  size_t at = trie.empty() ? text.size() : 0;
  while ((at = trie.NextCandidate(text, at)) < text.size()) {
    size_t length = 0;
    const int index = trie.LongestAt(text, at, &length);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[index];
    size_t begin = at;
    size_t end = at = at + length;
    if (token.special && !with_special) continue;
    if (token.single_word && (WordEndsAt(text, begin) || WordStartsAt(text, end))) continue;
    if (token.lstrip) begin = SkipSpacesBack(text, begin, done);
    if (token.rstrip) end = at = SkipSpaces(text, end);
    if (begin > done) parts->push_back({{done, begin}, kText});
    parts->push_back({{begin, end}, token.id});
    done = end;
  }
  if (done < text.size()) parts->push_back({{done, text.size()}, kText});
}

}  // namespace gatefold

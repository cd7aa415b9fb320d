#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace gatefold {

// Keeps special tokens that are spelled out in the contents of a conversation from becoming those
// tokens once the chat template has put contents and its own special tokens into one text: each
// such spelling is put between two marks, private-use characters that the conversation does not
// have, and found again by them in the rendered text.
// A conversation without such spellings, as nearly all are, is left alone, so its ids are the
// reference's. (Tokenising all contents apart from the template would change ids at every border,
// and standing in for the contents would blind templates that trim or inspect them.)
// Threads: safe.
class ContentGuard {
 public:
  struct Part {
    std::string text;
    bool literal = false;  // a spelling out of the contents: not to be parsed as a token
  };
  struct Marks {
    std::string open, close;  // empty: no content needed any
  };

  // How the tokenizer spells its special tokens.
  explicit ContentGuard(const std::vector<std::string>& special_tokens);

  // Puts the marks into the contents.
  Marks Guard(const std::vector<std::string*>& contents) const;

  // The rendered text without its marks. A template may have torn contents apart: a mark that does
  // not frame exactly one spelling is only dropped.
  std::vector<Part> Split(absl::string_view rendered, const Marks& marks) const;

 private:
  // Length of the longest special token that `text`, not empty, starts with; 0: none.
  size_t TokenAtStart(absl::string_view text) const;
  bool HasToken(absl::string_view text) const;
  std::string WithMarks(absl::string_view content, const Marks& marks) const;

  std::array<std::vector<std::string>, 256> by_first_byte_;
};

}  // namespace gatefold

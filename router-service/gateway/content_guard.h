#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace gatefold {

// Keeps special tokens that are spelled out in the contents of a conversation from becoming those
// tokens once the chat template has put them into one text. Inside each spelling a mark goes, a
// private-use character that the conversation does not have; the rendered text is cut at the marks
// and the parts are tokenised one by one, so the spelling is never whole.
// A conversation without such spellings, as nearly all are, is left alone, so its ids are the
// reference's. (Tokenising all contents apart from the template would change ids at every border,
// and hide the contents from templates that trim or inspect them.)
// Threads: safe.
class ContentGuard {
 public:
  // How the tokenizer spells its special tokens; those of a single character cannot be cut and are
  // taken out of contents instead.
  explicit ContentGuard(const std::vector<std::string>& special_tokens);

  // Changes the contents; returns the mark, empty if none was needed.
  std::string Guard(std::vector<std::string*> contents) const;

  // `rendered` without its marks, cut where they were.
  static std::vector<absl::string_view> Cut(absl::string_view rendered, absl::string_view mark);

 private:
  bool StartsWithToken(absl::string_view text) const;
  std::string WithMarks(const std::string& content, absl::string_view mark) const;

  std::array<std::vector<std::string>, 256> by_first_byte_;
};

}  // namespace gatefold

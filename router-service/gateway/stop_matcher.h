#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace gatefold {

// Finds the first stop string in a text that arrives in pieces, and lets through only what cannot
// be part of one: at most len(longest stop string) - 1 bytes are held back, which Finish() returns.
// The stop string that *ends* first wins; of those that end at the same byte, the longest. (What
// starts first would need text held back beyond a complete shorter match.)
// Matching is on bytes. Stop strings and text are valid UTF-8, which is self-synchronising, so what
// is let through is valid too. Threads: one at a time.
class StopMatcher {
 public:
  struct Result {
    std::string text;            // to be shown now
    std::optional<int> matched;  // index of the stop string that ended the text
  };

  // Empty stop strings are not allowed. No stop strings: everything passes at once.
  explicit StopMatcher(std::vector<std::string> stops);

  // With `may_stop` false a stop string that ends within `text` is ordinary text; one that only
  // begins in it may still match later. After a match everything more is dropped.
  Result Push(absl::string_view text, bool may_stop = true);

  // The text that was held back for a stop string that did not come.
  std::string Finish();

  const std::string& stop(int index) const { return patterns_[index].bytes; }

 private:
  // One stop string with its Knuth-Morris-Pratt table; the pieces arrive byte by byte, so the
  // state is all that is kept between them.
  struct Pattern {
    std::string bytes;
    std::vector<int> border;  // border[i]: longest proper border of the first i bytes
    int n_matched = 0;
    // Takes one byte; true when the whole pattern ends with it.
    bool Advance(char byte);
  };

  std::vector<Pattern> patterns_;
  std::string held_;
  bool ended_ = false;
};

}  // namespace gatefold

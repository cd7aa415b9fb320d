#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/json_fields.h"
#include "gatefold/tokenizer/known_patterns.h"
#include "gatefold/tokenizer/regex.h"

namespace gatefold {

// What Split and Replace look for: a string, or a regular expression.
// Threads: safe, each with a scratch of its own.
class Pattern {
 public:
  static Pattern Literal(absl::string_view text);
  static absl::StatusOr<Pattern> FromRegex(absl::string_view regex);
  // Reads `{"String": ...}` or `{"Regex": ...}` under `key`.
  static absl::StatusOr<Pattern> FromJson(JsonFields* fields, const char* key);

  // Appends the matches in `text`, valid UTF-8, from left to right. An empty literal has none.
  absl::Status FindAll(absl::string_view text, RegexScratch* scratch,
                       std::vector<Span>* matches) const;

 private:
  Pattern() = default;

  // One of the three.
  std::string literal_;
  KnownPattern known_ = nullptr;
  std::shared_ptr<const Regex> regex_;
};

enum class SplitBehavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

// The pieces of [0, length) that splitting at `matches` leaves, in order and none of them empty.
// With `invert` the text between the matches plays their part.
void SplitAt(const std::vector<Span>& matches, size_t length, SplitBehavior behavior, bool invert,
             std::vector<Span>* pieces);

}  // namespace gatefold

#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold {

struct Span {
  size_t begin;  // bytes
  size_t end;
};

// Working memory of matching, for one thread at a time. Made once for each text, since its parts
// cost more than a match.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  struct Parts;
  std::unique_ptr<Parts> parts_;  // made by the first match
};

// A regular expression of a tokenizer file: Oniguruma syntax with Ruby's rules, run by PCRE2 with
// limits on its steps and memory, so that no pattern can hang or exhaust a server.
// What the two engines read differently is translated (\s, \w, \h, \uXXXX, [:punct:], the meaning
// of ^ and $) or refused (class intersection, nested classes, {n,m}+).
// Threads: safe, each with a scratch of its own.
class Regex {
 public:
  // InvalidArgument, Unimplemented.
  static absl::StatusOr<std::unique_ptr<Regex>> Compile(absl::string_view pattern);
  ~Regex();

  // Appends all matches in `text`, valid UTF-8, from left to right, empty ones too except where
  // the match before ended. ResourceExhausted past the limits.
  absl::Status FindAll(absl::string_view text, RegexScratch* scratch,
                       std::vector<Span>* matches) const;

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

// Exposed for its test: `pattern` in PCRE2's syntax.
absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern);

}  // namespace gatefold

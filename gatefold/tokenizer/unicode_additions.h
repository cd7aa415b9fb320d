#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace gatefold {

// A run of code points that Unicode 16.0 has and 14.0 had not, all of one general category.
// The reference's regular expressions know 16.0, Debian's PCRE2 14.0 and its utf8proc 15.0; text
// in one of the new scripts would be cut otherwise.
struct UnicodeAddition {
  char32_t first;
  char32_t last;
  char category[3];  // as "Lu"
};

// The general category that `code_point` got after 14.0, as "Lu"; "" for all others.
absl::string_view AddedCategory(char32_t code_point);

// What to put beside \p{NAME} in a character class of a pattern, as "\x{1C89}\x{A7CB}-\x{A7CC}".
// `name` is a general category such as "L" or "Lu"; "" for other names.
std::string AdditionsTo(absl::string_view name);

}  // namespace gatefold

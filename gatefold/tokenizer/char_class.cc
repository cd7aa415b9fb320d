#include "gatefold/tokenizer/char_class.h"

#include <utf8proc.h>

#include "absl/strings/string_view.h"
#include "gatefold/tokenizer/unicode_additions.h"

namespace gatefold {
namespace {

bool IsWhiteSpaceProperty(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Alphabetic code points that are neither letters, marks nor letter numbers: circled, squared and
// parenthesised Latin letters.
bool IsAlphabeticSymbol(char32_t c) {
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

bool IsAsciiSymbol(char32_t c) {
  return c == '$' || c == '+' || c == '<' || c == '=' || c == '>' || c == '^' || c == '`' ||
         c == '|' || c == '~';
}

// `category` as "Lu".
uint8_t FromCategory(absl::string_view category) {
  switch (category[0]) {
    case 'L':
      return kLetter | kWord;
    case 'M':
      return kMark | kWord;
    case 'N':
      return kNumber | (category != "No" ? kWord : 0);
    case 'P':
      return kPunctuation | (category == "Pc" ? kWord : 0);
    default:
      return 0;
  }
}

}  // namespace

uint8_t ComputeCharClass(char32_t c) {
  const absl::string_view added = AddedCategory(c);
  uint8_t classes = FromCategory(
      added.empty() ? utf8proc_category_string(static_cast<utf8proc_int32_t>(c)) : added);
  if (IsWhiteSpaceProperty(c)) classes |= kSpace;
  const bool is_new_number = (c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6);
  if ((classes & kNumber) != 0 || is_new_number) classes |= kNumeric;
  if (IsAsciiSymbol(c)) classes |= kPunctuation;
  if (IsAlphabeticSymbol(c) || c == 0x200C || c == 0x200D) classes |= kWord;
  return classes;
}

const BmpClasses& GetBmpClasses() {
  static const BmpClasses* const kClasses = [] {
    auto* classes = new BmpClasses;
    for (char32_t c = 0; c < classes->size(); ++c) (*classes)[c] = ComputeCharClass(c);
    return classes;
  }();
  return *kClasses;
}

}  // namespace gatefold

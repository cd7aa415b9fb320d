#pragma once

// Unicode properties as the tokenizers' regular expressions see them.

#include <array>
#include <cstdint>

namespace gatefold {

enum CharClass : uint8_t {
  kLetter = 1,       // \p{L}
  kNumber = 2,       // \p{N}
  kSpace = 4,        // White_Space, as \s of the reference: U+0085 is in, U+180E is not
  kPunctuation = 8,  // \p{P}, and ASCII symbols such as + and $
  kMark = 16,        // \p{M}
  kWord = 32,        // \w: letter, mark, digit, connector, joiner, circled letter
  kNumeric = 64,     // kNumber, and what Unicode 17 adds to it: the Digits pre-tokenizer
};

using BmpClasses = std::array<uint8_t, 0x10000>;
// Built at the first call. Threads: safe.
const BmpClasses& GetBmpClasses();

// A set of CharClass bits.
uint8_t ComputeCharClass(char32_t code_point);
inline uint8_t CharClassOf(char32_t code_point, const BmpClasses& bmp) {
  return code_point < bmp.size() ? bmp[code_point] : ComputeCharClass(code_point);
}
inline uint8_t CharClassOf(char32_t code_point) { return CharClassOf(code_point, GetBmpClasses()); }
inline bool IsSpace(char32_t code_point) { return (CharClassOf(code_point) & kSpace) != 0; }

}  // namespace gatefold

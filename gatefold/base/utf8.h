#pragma once

// UTF-8 by hand: tokenizers and templates work on code points, the wire and the log on bytes, and
// all must agree on what is valid (no surrogates, no overlong forms, nothing past U+10FFFF).

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace gatefold {

// Follows one byte sequence; tells after each byte whether it stands between two code points.
class Utf8State {
 public:
  enum Step {
    kComplete,  // the byte ends a code point
    kPartial,   // more bytes of this code point must follow
    kInvalid,   // the byte cannot stand here; the state is as if it had not been fed
  };
  Step Feed(uint8_t byte);
  bool partial() const { return missing_ > 0; }
  void Reset() { missing_ = 0; }

 private:
  int missing_ = 0;                   // continuation bytes still to come
  uint8_t low_ = 0x80, high_ = 0xBF;  // what the next one may be
};

inline constexpr size_t kValidUtf8 = static_cast<size_t>(-1);
// Offset of the first byte that does not belong to a complete code point; kValidUtf8 if none.
size_t FindInvalidUtf8(absl::string_view text);

// With '?' for each byte that does not belong to a complete code point. For text from elsewhere: a
// protobuf string that is not valid makes its whole message unreadable at the other end, and a line
// of JSON, too.
std::string ValidUtf8(std::string text);

// The code point that starts at `text[*position]`, which is advanced past it. The text is valid
// UTF-8 and the position is at a boundary before its end.
inline char32_t NextCodePoint(absl::string_view text, size_t* position) {
  const auto* p = reinterpret_cast<const uint8_t*>(text.data()) + *position;
  if (p[0] < 0x80) {
    *position += 1;
    return p[0];
  }
  if (p[0] < 0xE0) {
    *position += 2;
    return (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu);
  }
  if (p[0] < 0xF0) {
    *position += 3;
    return (p[0] & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu);
  }
  *position += 4;
  return (p[0] & 0x07u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu);
}

// Start of the code point that ends before `position` > 0, in valid UTF-8.
inline size_t PreviousBoundary(absl::string_view text, size_t position) {
  do {
    --position;
  } while (position > 0 && (static_cast<uint8_t>(text[position]) & 0xC0) == 0x80);
  return position;
}

void AppendUtf8(char32_t code_point, std::string* out);

// U+FFFD.
inline constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

// Appends `bytes` with one U+FFFD for every maximal part of a code point that is not completed,
// and for every byte that cannot start one (the practice Unicode recommends).
void AppendLossy(absl::string_view bytes, std::string* out);

// Whether `bytes`, decoded as by AppendLossy, would end in a code point that really is there and
// is not U+FFFD. Looks at the last 4 bytes only.
bool EndsInCodePoint(absl::string_view bytes);

// How many bytes at the end of `bytes` are the beginning of a code point that later bytes might
// complete: 0 to 3.
size_t IncompleteTail(absl::string_view bytes);

}  // namespace gatefold

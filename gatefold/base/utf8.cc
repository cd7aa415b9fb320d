#include "gatefold/base/utf8.h"

#include <algorithm>
#include <cstring>

namespace gatefold {

Utf8State::Step Utf8State::Feed(uint8_t byte) {
  if (missing_ > 0) {
    if (byte < low_ || byte > high_) return kInvalid;
    low_ = 0x80;
    high_ = 0xBF;
    return --missing_ == 0 ? kComplete : kPartial;
  }
  if (byte < 0x80) return kComplete;
  if (byte < 0xC2 || byte > 0xF4) return kInvalid;
  missing_ = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
  // The first continuation byte keeps out overlong forms, surrogates and what is past U+10FFFF.
  low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
  high_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
  return kPartial;
}

size_t FindInvalidUtf8(absl::string_view text) {
  Utf8State state;
  size_t start = 0;  // of the code point under way
  for (size_t i = 0; i < text.size();) {
    if (!state.partial() && i + 8 <= text.size()) {
      uint64_t eight;
      std::memcpy(&eight, text.data() + i, 8);
      if ((eight & 0x8080808080808080u) == 0) {
        i += 8;
        start = i;
        continue;
      }
    }
    if (!state.partial()) start = i;
    if (state.Feed(static_cast<uint8_t>(text[i])) == Utf8State::kInvalid) return start;
    ++i;
  }
  return state.partial() ? start : kValidUtf8;
}

std::string ValidUtf8(std::string text) {
  for (size_t from = 0; from < text.size();) {
    const size_t invalid = FindInvalidUtf8(absl::string_view(text).substr(from));
    if (invalid == kValidUtf8) break;
    from += invalid;
    text[from++] = '?';
  }
  return text;
}

void AppendUtf8(char32_t c, std::string* out) {
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out->push_back(static_cast<char>(0xC0 | c >> 6));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | c >> 12));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | c >> 18));
    out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

void AppendLossy(absl::string_view bytes, std::string* out) {
  Utf8State state;
  size_t start = 0;  // of the code point under way
  for (size_t i = 0; i < bytes.size(); ++i) {
    switch (state.Feed(static_cast<uint8_t>(bytes[i]))) {
      case Utf8State::kComplete:
        out->append(bytes.data() + start, i + 1 - start);
        start = i + 1;
        break;
      case Utf8State::kPartial:
        break;
      case Utf8State::kInvalid:
        out->append(kReplacement.data(), kReplacement.size());
        // A byte that broke a sequence may start one of its own.
        if (state.partial()) --i;
        state.Reset();
        start = i + 1;
        break;
    }
  }
  if (state.partial()) out->append(kReplacement.data(), kReplacement.size());
}

bool EndsInCodePoint(absl::string_view bytes) {
  for (size_t length = 1; length <= std::min<size_t>(4, bytes.size()); ++length) {
    const absl::string_view tail = bytes.substr(bytes.size() - length);
    if ((static_cast<uint8_t>(tail[0]) & 0xC0) == 0x80) continue;
    return FindInvalidUtf8(tail) == kValidUtf8 && tail != kReplacement;
  }
  return false;
}

size_t IncompleteTail(absl::string_view bytes) {
  for (size_t length = 1; length <= std::min<size_t>(3, bytes.size()); ++length) {
    const absl::string_view tail = bytes.substr(bytes.size() - length);
    if ((static_cast<uint8_t>(tail[0]) & 0xC0) == 0x80) continue;
    Utf8State state;
    for (const char c : tail) {
      if (state.Feed(static_cast<uint8_t>(c)) != Utf8State::kPartial) return 0;
    }
    return length;
  }
  return 0;
}

}  // namespace gatefold

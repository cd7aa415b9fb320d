#include "gatefold/tokenizer/byte_chars.h"

#include <array>

#include "gatefold/base/utf8.h"

namespace gatefold {
namespace {

constexpr int kNoByte = -1;

struct ByteChars {
  std::array<char32_t, 256> char_of_byte;
  std::array<int, 0x144> byte_of_char;
};

constexpr bool StandsForItself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr ByteChars MakeByteChars() {
  ByteChars map{};
  for (int& byte : map.byte_of_char) byte = kNoByte;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t c = StandsForItself(byte) ? static_cast<char32_t>(byte) : next++;
    map.char_of_byte[byte] = c;
    map.byte_of_char[c] = byte;
  }
  return map;
}

constexpr ByteChars kMap = MakeByteChars();

}  // namespace

std::optional<std::string> BytesOfToken(absl::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t i = 0; i < token.size();) {
    const char32_t c = NextCodePoint(token, &i);
    if (c >= kMap.byte_of_char.size() || kMap.byte_of_char[c] == kNoByte) return std::nullopt;
    bytes.push_back(static_cast<char>(kMap.byte_of_char[c]));
  }
  return bytes;
}

char32_t CharOfByte(uint8_t byte) { return kMap.char_of_byte[byte]; }

}  // namespace gatefold

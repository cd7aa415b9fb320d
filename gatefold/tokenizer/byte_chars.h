#pragma once

// The map between bytes and printable characters that byte-level vocabularies are written in:
// printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on (space is Ġ U+0120).

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace gatefold {

// The bytes a token stands for; nothing if a character is outside of the map. `token` is valid
// UTF-8.
std::optional<std::string> BytesOfToken(absl::string_view token);

char32_t CharOfByte(uint8_t byte);

}  // namespace gatefold

#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace gatefold {

// A byte-level BPE tokenizer for models without a vocabulary of their own: three special tokens,
// the 256 bytes, and a few merges, as far as `vocab_size` has room for them. Any text can be
// encoded, and any ids of it decode to some text.
inline constexpr int kByteTokenizerPad = 0;
inline constexpr int kByteTokenizerBos = 1;
inline constexpr int kByteTokenizerEos = 2;

// Content of tokenizer.json. InvalidArgument if `vocab_size` has no room for all bytes.
absl::StatusOr<std::string> ByteTokenizerJson(int vocab_size);

// Content of tokenizer_config.json, with a plain chat template.
std::string ByteTokenizerConfigJson(int max_positions);

}  // namespace gatefold

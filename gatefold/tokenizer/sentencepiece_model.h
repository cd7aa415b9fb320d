#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold {

enum SentencePieceType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

struct SentencePiece {
  std::string text;
  float score = 0;
  int64_t type = kNormal;
};

// A SentencePiece model file: the fields that matter here, with their defaults.
struct SentencePieceModel {
  std::vector<SentencePiece> pieces;
  int64_t model_type = 1;  // unigram
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  int64_t bos_id = 1, eos_id = 2;
  bool has_charsmap = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// The message is parsed by hand, because Debian's libsentencepiece carries protobuf symbols of its
// own that crash a gRPC process. InvalidArgument with the piece or spec; Unimplemented for models
// that are not BPE or normalise in a way of their own.
absl::StatusOr<SentencePieceModel> ReadSentencePieceModel(absl::string_view file);

}  // namespace gatefold

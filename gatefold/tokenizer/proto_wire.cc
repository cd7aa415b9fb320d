#include "gatefold/tokenizer/proto_wire.h"

#include <cstring>

#include "absl/strings/str_cat.h"

namespace gatefold {

bool ProtoWire::Fail(absl::string_view why) {
  status_ = absl::InvalidArgumentError(
      absl::StrCat("protobuf message ", why, " at byte ", size_ - rest_.size()));
  return false;
}

bool ProtoWire::ReadVarint(uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (rest_.empty()) return Fail("cut short");
    const auto byte = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    *value |= uint64_t{byte & 0x7Fu} << shift;
    if (byte < 0x80) return true;
  }
  return Fail("has an overlong number");
}

bool ProtoWire::ReadFixed(size_t n_bytes) {
  if (rest_.size() < n_bytes) return Fail("cut short");
  for (size_t i = 0; i < n_bytes; ++i) {
    number_ |= uint64_t{static_cast<uint8_t>(rest_[i])} << (8 * i);
  }
  rest_.remove_prefix(n_bytes);
  return true;
}

bool ProtoWire::Next() {
  number_ = 0;
  bytes_ = {};
  is_fixed32_ = false;
  if (rest_.empty() || !status_.ok()) return false;
  uint64_t key = 0;
  if (!ReadVarint(&key)) return false;
  if (key >> 3 == 0 || key >> 3 >= (1u << 29)) return Fail("has a bad field number");
  field_ = static_cast<uint32_t>(key >> 3);
  switch (key & 7) {
    case 0:
      return ReadVarint(&number_);
    case 1:
      return ReadFixed(8);
    case 2: {
      uint64_t size = 0;
      if (!ReadVarint(&size)) return false;
      if (size > rest_.size()) return Fail("cut short");
      bytes_ = rest_.substr(0, size);
      rest_.remove_prefix(size);
      return true;
    }
    case 5:
      is_fixed32_ = true;
      return ReadFixed(4);
    default:
      return Fail("has a field of unknown kind");
  }
}

float ProtoWire::AsFloat() const {
  if (!is_fixed32_) return 0;
  const auto bits = static_cast<uint32_t>(number_);
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace gatefold

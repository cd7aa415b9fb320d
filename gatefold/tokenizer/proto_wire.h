#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// Walks over the fields of one serialised protobuf message without knowing its type.
//   ProtoWire wire(bytes);
//   while (wire.Next()) { if (wire.field() == 1) use(wire.bytes()); }
//   GF_RETURN_IF_ERROR(wire.status());
class ProtoWire {
 public:
  // `bytes` outlive the walk.
  explicit ProtoWire(absl::string_view bytes) : rest_(bytes), size_(bytes.size()) {}

  // False at the end, and for a message that is cut short or malformed, which status() tells.
  bool Next();
  const absl::Status& status() const { return status_; }

  // Of the field that Next() found. A value of another kind than asked for reads as 0 or "".
  uint32_t field() const { return field_; }
  absl::string_view bytes() const { return bytes_; }
  int64_t AsInt() const { return static_cast<int64_t>(number_); }
  float AsFloat() const;

 private:
  bool ReadVarint(uint64_t* value);
  bool ReadFixed(size_t n_bytes);
  bool Fail(absl::string_view why);

  absl::string_view rest_;
  const size_t size_;
  uint32_t field_ = 0;
  uint64_t number_ = 0;
  bool is_fixed32_ = false;
  absl::string_view bytes_;
  absl::Status status_;
};

}  // namespace gatefold

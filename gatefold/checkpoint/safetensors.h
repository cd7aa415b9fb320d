#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/checkpoint/mapped_file.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {

// One tensor of a safetensors file: any element type the format knows.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;  // as the format spells it: "BF16", "I64", ...
  std::vector<int64_t> shape;
  uint64_t begin = 0;  // bytes from the start of the data section
  uint64_t end = 0;
  const char* data = nullptr;  // in the mapping; may be unaligned; null from ParseSafetensors

  uint64_t size_bytes() const { return end - begin; }
};

// kF32, kBF16 and kF16 for the format's "F32", "BF16" and "F16"; nothing for its other types.
std::optional<DType> ParseWeightDType(absl::string_view dtype);
absl::string_view SafetensorsDTypeName(DType dtype);

struct SafetensorsHeader {
  uint64_t data_offset = 0;                // in the file
  std::vector<SafetensorsTensor> tensors;  // in the order of their data
  std::map<std::string, std::string> metadata;
};

// Parses a file of `file_size` bytes whose first `size` bytes are `data` (at least the header must
// be there). Safe on hostile bytes: memory stays proportional to the header.
// InvalidArgument, naming tensor and numbers, for: a header that is too short, too long (more than
// 100,000,000 bytes), longer than the file, not UTF-8, not a JSON object at its first byte, nested
// too deep or with a duplicate key; metadata that is not a string; unknown types; negative,
// fractional or overflowing numbers; sizes that are not what type and shape say; holes, overlaps
// and bytes after the last tensor.
// Accepted, as the reference library does: unknown fields of an entry, an empty name, an empty
// shape (one element), dimensions of zero, no tensors, `"__metadata__": null`.
absl::StatusOr<SafetensorsHeader> ParseSafetensors(const char* data, size_t size,
                                                   uint64_t file_size);

// A mapped safetensors file. Threads: safe.
class SafetensorsFile {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::string& path);

  const std::vector<SafetensorsTensor>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  // Null if there is none.
  const SafetensorsTensor* Find(absl::string_view name) const;

 private:
  SafetensorsFile() = default;
  MappedFile file_;
  SafetensorsHeader header_;
};

}  // namespace gatefold

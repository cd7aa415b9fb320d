#include "gatefold/checkpoint/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/safetensors_header_reader.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

// Bits per element; 0 for a type the format does not know.
int BitsPerElement(absl::string_view dtype) {
  struct Known {
    absl::string_view name;
    int bits;
  };
  static constexpr Known kTypes[] = {
      {"BOOL", 8},    {"U8", 8},      {"I8", 8},   {"F8_E5M2", 8},     {"F8_E4M3", 8},
      {"F8_E8M0", 8}, {"I16", 16},    {"U16", 16}, {"F8_E5M2FNUZ", 8}, {"F8_E4M3FNUZ", 8},
      {"F16", 16},    {"BF16", 16},   {"I32", 32}, {"U32", 32},        {"F32", 32},
      {"I64", 64},    {"U64", 64},    {"F64", 64}, {"C64", 64},        {"F4", 4},
      {"F6_E2M3", 6}, {"F6_E3M2", 6},
  };
  for (const Known& type : kTypes) {
    if (type.name == dtype) return type.bits;
  }
  return 0;
}

absl::Status Refuse(const SafetensorsTensor& tensor, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor \"", PrintableName(tensor.name), "\": ", why));
}

// The product of the shape, in the order of the dimensions, must fit before a later zero makes it
// small: readers in other languages multiply the same way.
absl::StatusOr<uint64_t> ExpectedBytes(const SafetensorsTensor& tensor) {
  const int bits = BitsPerElement(tensor.dtype);
  if (bits == 0) {
    return Refuse(tensor, absl::StrCat("unknown dtype \"", PrintableName(tensor.dtype), "\""));
  }
  int64_t elements = 1;
  for (int64_t dim : tensor.shape) {
    if (__builtin_mul_overflow(elements, dim, &elements)) {
      return Refuse(tensor, "the product of its shape overflows");
    }
  }
  uint64_t total_bits = 0;
  if (__builtin_mul_overflow(static_cast<uint64_t>(elements), static_cast<uint64_t>(bits),
                             &total_bits)) {
    return Refuse(tensor, "its size in bits overflows");
  }
  if (total_bits % 8 != 0) {
    return Refuse(tensor,
                  absl::StrCat(elements, " elements of ", bits, " bits do not fill whole bytes"));
  }
  return total_bits / 8;
}

// Every tensor has the bytes its type and shape need, and together they cover the data section,
// `data_bytes` long, exactly once. Sorts `tensors` by their place.
absl::Status CheckLayout(uint64_t data_bytes, std::vector<SafetensorsTensor>* tensors) {
  std::sort(tensors->begin(), tensors->end(),
            [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
              return std::make_pair(a.begin, a.end) < std::make_pair(b.begin, b.end);
            });
  uint64_t covered = 0;
  for (const SafetensorsTensor& tensor : *tensors) {
    if (tensor.end < tensor.begin) {
      return Refuse(tensor, absl::StrCat("data_offsets end at ", tensor.end, " before they begin, ",
                                         tensor.begin));
    }
    GF_ASSIGN_OR_RETURN(const uint64_t expected, ExpectedBytes(tensor));
    if (tensor.size_bytes() != expected) {
      return Refuse(tensor, absl::StrCat("data_offsets span ", tensor.size_bytes(),
                                         " bytes, its dtype and shape need ", expected));
    }
    if (tensor.begin != covered) {
      return Refuse(
          tensor, absl::StrCat(tensor.begin < covered ? "overlaps" : "leaves a hole after",
                               " the tensors before it: begins at ", tensor.begin, ", they end at ",
                               covered));
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("the tensors end at byte ", covered,
                                                   " of the data, the file at ", data_bytes,
                                                   covered > data_bytes ? " (truncated?)" : ""));
  }
  return absl::OkStatus();
}

absl::Status CheckUniqueNames(const std::vector<SafetensorsTensor>& tensors) {
  std::vector<absl::string_view> names;
  names.reserve(tensors.size());
  for (const SafetensorsTensor& tensor : tensors) names.push_back(tensor.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("tensor \"", PrintableName(*twice), "\" appears twice in the header"));
}

}  // namespace

std::optional<DType> ParseWeightDType(absl::string_view dtype) {
  if (dtype == "F32") return DType::kF32;
  if (dtype == "BF16") return DType::kBF16;
  if (dtype == "F16") return DType::kF16;
  return std::nullopt;
}

absl::string_view SafetensorsDTypeName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kBF16:
      return "BF16";
    case DType::kF16:
      return "F16";
  }
  return "";
}

absl::StatusOr<SafetensorsHeader> ParseSafetensors(const char* data, size_t size,
                                                   uint64_t file_size) {
  if (file_size < kLengthBytes || size < kLengthBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("a safetensors file has at least 8 bytes, this has ", file_size));
  }
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) {
    header_bytes = header_bytes << 8 | static_cast<unsigned char>(data[i]);
  }
  if (header_bytes > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the header claims ", header_bytes, " bytes; at most ", kMaxHeaderBytes, " are allowed"));
  }
  if (header_bytes > file_size - kLengthBytes || header_bytes > size - kLengthBytes) {
    return absl::InvalidArgumentError(absl::StrCat("the header claims ", header_bytes,
                                                   " bytes, the file has ",
                                                   file_size - kLengthBytes, " after its length"));
  }
  SafetensorsHeader header;
  header.data_offset = kLengthBytes + header_bytes;
  GF_RETURN_IF_ERROR(
      ReadSafetensorsHeader(absl::string_view(data + kLengthBytes, header_bytes), &header));
  GF_RETURN_IF_ERROR(CheckUniqueNames(header.tensors));
  GF_RETURN_IF_ERROR(CheckLayout(file_size - header.data_offset, &header.tensors));
  return header;
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const std::string& path) {
  std::unique_ptr<SafetensorsFile> file(new SafetensorsFile);
  GF_ASSIGN_OR_RETURN(file->file_, MappedFile::Open(path));
  auto header = ParseSafetensors(file->file_.data(), file->file_.size(), file->file_.size());
  if (!header.ok()) return Annotate(header.status(), path);
  file->header_ = *std::move(header);
  for (SafetensorsTensor& tensor : file->header_.tensors) {
    tensor.data = file->file_.data() + file->header_.data_offset + tensor.begin;
  }
  return file;
}

const SafetensorsTensor* SafetensorsFile::Find(absl::string_view name) const {
  for (const SafetensorsTensor& tensor : header_.tensors) {
    if (tensor.name == name) return &tensor;
  }
  return nullptr;
}

}  // namespace gatefold

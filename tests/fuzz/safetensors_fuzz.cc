// Input: two bytes of data section length, then the text of a header; or, if the first byte is
// 0xff, the rest is a whole file.

#include <cstdint>
#include <cstring>
#include <string>

#include "gatefold/base/check.h"
#include "gatefold/checkpoint/safetensors.h"

namespace {

// What a reader relies on after a parse: every tensor lies inside the file, which is covered once.
void CheckTensors(const gatefold::SafetensorsHeader& header, const std::string& file) {
  uint64_t covered = 0;
  unsigned touched = 0;
  for (const gatefold::SafetensorsTensor& tensor : header.tensors) {
    GF_CHECK(tensor.begin == covered && tensor.end >= tensor.begin);
    covered = tensor.end;
    for (uint64_t i = tensor.begin; i < tensor.end; ++i) {
      touched += static_cast<unsigned char>(file.at(header.data_offset + i));
    }
    int64_t elements = 1;
    for (int64_t dim : tensor.shape) {
      GF_CHECK(dim >= 0);
      elements *= dim;  // must not overflow: the sanitizer watches
    }
    const auto dtype = gatefold::ParseWeightDType(tensor.dtype);
    if (dtype.has_value()) {
      GF_CHECK(static_cast<uint64_t>(elements) * gatefold::DTypeBytes(*dtype) ==
               tensor.size_bytes());
    }
  }
  GF_CHECK(header.data_offset + covered == file.size());
  volatile unsigned sink = touched;
  (void)sink;
}

std::string FileFromInput(const uint8_t* data, size_t size) {
  const char* text = reinterpret_cast<const char*>(data);
  if (data[0] == 0xff) return std::string(text + 1, size - 1);
  const size_t n_data = data[0] | static_cast<size_t>(data[1]) << 8;
  const std::string header(text + 2, size - 2);
  std::string file(8, '\0');
  for (int i = 0; i < 8; ++i)
    file[i] = static_cast<char>(static_cast<uint64_t>(header.size()) >> (8 * i));
  return file + header + std::string(n_data, 'x');
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string file = FileFromInput(data, size);
  const auto header = gatefold::ParseSafetensors(file.data(), file.size(), file.size());
  if (header.ok()) {
    CheckTensors(*header, file);
  } else {
    GF_CHECK(!header.status().message().empty());
  }
  return 0;
}

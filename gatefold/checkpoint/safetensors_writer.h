#pragma once

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {

// Writes one safetensors file from front to back, so that it never has to be in memory.
// Threads: one at a time.
class SafetensorsWriter {
 public:
  struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
  };

  // Creates or replaces `path` and writes the header. The tensors' bytes are laid out in the given
  // order. Errors: InvalidArgument (duplicate name, negative dimension), those of the file system.
  static absl::StatusOr<std::unique_ptr<SafetensorsWriter>> Create(
      const std::string& path, const std::vector<Tensor>& tensors,
      const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  // The next bytes of the data section; pieces need not end where tensors end.
  absl::Status Append(const void* data, size_t bytes);

  // The file is complete only if this returns OK. Errors: FailedPrecondition when bytes are
  // missing.
  absl::Status Finish();

 private:
  struct CloseFile {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  SafetensorsWriter() = default;

  std::string path_;
  std::unique_ptr<std::FILE, CloseFile> file_;
  uint64_t data_bytes_ = 0;
  uint64_t written_bytes_ = 0;
};

}  // namespace gatefold

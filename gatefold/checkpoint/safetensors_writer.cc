#include "gatefold/checkpoint/safetensors_writer.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/checkpoint/safetensors.h"
#include "gatefold/checkpoint/strict_json.h"

namespace gatefold {
namespace {

using nlohmann::json;

absl::Status FileError(const std::string& path) {
  return absl::ErrnoToStatus(errno, absl::StrCat("cannot write ", path));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    const std::string& path, const std::vector<Tensor>& tensors,
    const std::map<std::string, std::string>& metadata) {
  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter);
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    if (header.contains(tensor.name)) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", tensor.name, " is given twice"));
    }
    uint64_t bytes = DTypeBytes(tensor.dtype);
    for (int64_t dim : tensor.shape) {
      if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", tensor.name, " has a dimension of ", dim));
      }
    }
    const absl::string_view dtype = SafetensorsDTypeName(tensor.dtype);
    header[tensor.name] = {{"dtype", std::string(dtype.data(), dtype.size())},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump(-1, ' ', false, json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data starts aligned

  writer->path_ = path;
  writer->data_bytes_ = offset;
  writer->file_.reset(std::fopen(path.c_str(), "wb"));
  if (writer->file_ == nullptr) return FileError(path);
  unsigned char length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(text.size() >> (8 * i));
  if (std::fwrite(length, 1, sizeof length, writer->file_.get()) != sizeof length ||
      std::fwrite(text.data(), 1, text.size(), writer->file_.get()) != text.size()) {
    return FileError(path);
  }
  return writer;
}

absl::Status SafetensorsWriter::Append(const void* data, size_t bytes) {
  if (bytes > data_bytes_ - written_bytes_) {
    return absl::FailedPreconditionError(absl::StrCat(
        path_, ": ", bytes, " more bytes do not fit after ", written_bytes_, " of ", data_bytes_));
  }
  if (std::fwrite(data, 1, bytes, file_.get()) != bytes) return FileError(path_);
  written_bytes_ += bytes;
  return absl::OkStatus();
}

absl::Status SafetensorsWriter::Finish() {
  if (written_bytes_ != data_bytes_) {
    return absl::FailedPreconditionError(
        absl::StrCat(path_, ": ", written_bytes_, " bytes written of ", data_bytes_));
  }
  if (std::fclose(file_.release()) != 0) return FileError(path_);
  return absl::OkStatus();
}

}  // namespace gatefold

#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace gatefold {

// A regular file, open for reading. Closed with the object.
class RegularFile {
 public:
  // Never waits, as opening a FIFO would. kInvalidArgument if it is no regular file.
  static absl::StatusOr<RegularFile> Open(const std::string& path);
  RegularFile(RegularFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), info_(other.info_) {}
  RegularFile& operator=(RegularFile&&) = delete;
  ~RegularFile();

  int fd() const { return fd_; }
  const struct stat& info() const { return info_; }
  size_t size() const { return static_cast<size_t>(info_.st_size); }

 private:
  explicit RegularFile(int fd) : fd_(fd) {}

  int fd_;
  struct stat info_ = {};
};

}  // namespace gatefold

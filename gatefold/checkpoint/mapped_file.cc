#include "gatefold/checkpoint/mapped_file.h"

#include <sys/mman.h>

#include <cerrno>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/regular_file.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
absl::StatusOr<MappedFile> MappedFile::Open(const std::string& path) {
  GF_ASSIGN_OR_RETURN(const RegularFile opened, RegularFile::Open(path));
  MappedFile file;
  if (opened.size() == 0) return file;
  void* data = mmap(nullptr, opened.size(), PROT_READ, MAP_PRIVATE, opened.fd(), 0);
  if (data == MAP_FAILED) return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
  file.data_ = static_cast<const char*>(data);
  file.size_ = opened.size();
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<char*>(data_), size_);
}

}  // namespace gatefold

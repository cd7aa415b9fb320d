#include "gatefold/rpc/published_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace gatefold {
namespace {

// False with errno.
bool WriteAll(int fd, absl::string_view contents) {
  while (!contents.empty()) {
    const ssize_t n = write(fd, contents.data(), contents.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    contents.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

}  // namespace

std::string PublishedFile::path() const { return absl::StrCat("/proc/self/fd/", fd_); }

absl::Status PublishedFile::Publish(absl::string_view contents) {
  const int fd = memfd_create("gatefold-tls", MFD_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, "a file in memory");
  const timespec time = {++generation_, 0};
  const timespec times[2] = {time, time};
  if (!WriteAll(fd, contents) || futimens(fd, times) != 0) {
    const absl::Status status = absl::ErrnoToStatus(errno, "a file in memory");
    close(fd);
    return status;
  }
  if (fd_ < 0) {
    fd_ = fd;
    return absl::OkStatus();
  }
  // In one piece: there is no moment at which the path leads nowhere.
  const bool replaced = dup3(fd, fd_, O_CLOEXEC) >= 0;
  const int error = errno;
  close(fd);
  return replaced ? absl::OkStatus() : absl::ErrnoToStatus(error, "a file in memory");
}

}  // namespace gatefold

#include "gatefold/base/small_file.h"

#include <grp.h>

#include <algorithm>
#include <cerrno>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gatefold/base/regular_file.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

absl::StatusOr<std::string> ReadAll(int fd, size_t size, const std::string& path) {
  std::string content(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t n = read(fd, &content[done], size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  content.resize(done);
  return content;
}

absl::StatusOr<std::string> Read(const std::string& path, size_t max_bytes,
                                 const std::function<absl::Status(const struct stat&)>& check) {
  GF_ASSIGN_OR_RETURN(const RegularFile file, RegularFile::Open(path));
  GF_RETURN_IF_ERROR(check(file.info()));
  const size_t size = file.size();
  if (size > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path, " has ", size, " bytes; at most ", max_bytes, " are read"));
  }
  return ReadAll(file.fd(), size, path);
}

std::vector<gid_t> OwnGroups() {
  std::vector<gid_t> groups(std::max(0, getgroups(0, nullptr)));
  groups.resize(std::max(0, getgroups(static_cast<int>(groups.size()), groups.data())));
  groups.push_back(getegid());
  return groups;
}

}  // namespace

absl::Status CheckPrivateMode(absl::string_view path, const struct stat& file,
                              const std::vector<gid_t>& groups) {
  const unsigned mode = file.st_mode & 07777;
  const bool groups_own =
      file.st_uid == 0 && std::find(groups.begin(), groups.end(), file.st_gid) != groups.end();
  const unsigned allowed = groups_own ? 0740 : 0700;  // the owner's own rights are its business
  if ((mode & 0777 & ~allowed) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "%s holds a secret and has mode %04o, so others than its owner can reach it; it must have "
      "%s (chmod 600, in a Kubernetes Secret volume defaultMode: 0400)",
      path, mode, groups_own ? "0640 or less" : "0600 or less"));
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes) {
  return Read(path, max_bytes, [](const struct stat&) { return absl::OkStatus(); });
}

absl::StatusOr<std::string> ReadPrivateFile(const std::string& path, size_t max_bytes) {
  return Read(path, max_bytes,
              [&](const struct stat& file) { return CheckPrivateMode(path, file, OwnGroups()); });
}

}  // namespace gatefold

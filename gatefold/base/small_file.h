#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// The whole of a small file. kResourceExhausted past `max_bytes`, with nothing read;
// kInvalidArgument if it is no regular file.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t max_bytes);

// The same for a file that holds a secret. kFailedPrecondition, naming the mode it should have,
// where CheckPrivateMode says no; what is checked is the file that is read.
absl::StatusOr<std::string> ReadPrivateFile(const std::string& path, size_t max_bytes);

// Nobody but the owner may have any right to it. One exception: root's file may be readable by a
// group of this process. So Kubernetes hands out Secrets to a pod with an fsGroup, which is that
// pod's alone, and so Debian keeps keys for the group ssl-cert.
absl::Status CheckPrivateMode(absl::string_view path, const struct stat& file,
                              const std::vector<gid_t>& groups);

}  // namespace gatefold

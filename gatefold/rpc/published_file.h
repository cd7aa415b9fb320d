#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// A file in memory whose contents are replaced in one piece. gRPC 1.51 takes certificates that
// change from paths alone; this gives it paths that lead to contents which we have checked, and
// needs no place to write to. The contents stay readable as long as the process lives, even after
// this object: gRPC may look again for as long as a channel exists.
// Threads: one that publishes, any that read.
class PublishedFile {
 public:
  PublishedFile() = default;
  PublishedFile(const PublishedFile&) = delete;
  PublishedFile& operator=(const PublishedFile&) = delete;

  // Who opens path() from now on finds these contents; who has it open keeps the old ones. Each
  // time the file's time of change is another second, so that one who reads twice can tell.
  absl::Status Publish(absl::string_view contents);

  // Good after the first Publish, in this process only. Stays the same.
  std::string path() const;

 private:
  int fd_ = -1;
  int generation_ = 0;
};

}  // namespace gatefold

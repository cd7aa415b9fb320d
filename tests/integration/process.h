#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace gatefold {

// Where a built binary is.
std::string ProgramPath(const std::string& program);

// One of the built binaries as a child process, its output in a file. Killed when destroyed.
class Process {
 public:
  // `program` is a name under build/<preset>/bin.
  static absl::StatusOr<std::unique_ptr<Process>> Start(const std::string& program,
                                                        std::vector<std::string> args,
                                                        const std::string& log_path);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Until a line of its output starts with `prefix`; returns the line. Fails, with the end of the
  // output, if the process ends or the deadline passes first.
  absl::StatusOr<std::string> AwaitLine(const std::string& prefix, absl::Time deadline);

  void Signal(int signal);
  // Kills it if it still runs, and starts it again with the same arguments and an empty log.
  absl::Status Restart();
  // Exit code, or 128 + signal; kDeadlineExceeded if it still runs.
  absl::StatusOr<int> Wait(absl::Time deadline);
  std::string Log() const;
  pid_t pid() const { return pid_; }

 private:
  Process(std::vector<std::string> command, std::string log_path)
      : command_(std::move(command)), log_path_(std::move(log_path)) {}
  absl::Status Spawn();
  void Kill();
  bool Ended();

  const std::vector<std::string> command_;
  const std::string log_path_;
  pid_t pid_ = -1;
  bool ended_ = false;
  int exit_code_ = 0;
};

// A folder of its own under the system's temporary one, removed with the object.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  std::string Path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace gatefold

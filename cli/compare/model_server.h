#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/connection.h"
#include "cli/interrupts.h"

namespace gatefold::cli {

// One model served by a `gatefold serve` of its own, so that its memory is its own and several can
// be measured by turns. Stopped when destroyed.
class ModelServer {
 public:
  // `flags` are those of serve besides --model and --listen. Waits until it is ready.
  // Errors: what the server wrote last, if it ends before.
  static absl::StatusOr<std::unique_ptr<ModelServer>> Start(const std::string& model_dir,
                                                            const std::vector<std::string>& flags,
                                                            Interrupts* interrupts);
  ~ModelServer();
  ModelServer(const ModelServer&) = delete;
  ModelServer& operator=(const ModelServer&) = delete;

  Connection* connection() { return connection_.get(); }
  double load_seconds() const { return load_seconds_; }
  // The most memory that was resident so far. Errors: Unavailable without /proc.
  absl::StatusOr<uint64_t> PeakMemoryBytes() const;

 private:
  ModelServer() = default;
  absl::Status Spawn(const std::vector<std::string>& command);
  void Stop();
  absl::Status AwaitReady(const std::string& model_dir, Interrupts* interrupts);

  std::string folder_;  // of its socket
  pid_t pid_ = -1;
  int input_ = -1;     // it ends when this is closed, by whatever ends this process
  int output_ = -1;    // what it writes; standard output and error together
  std::thread drain_;  // of output_, until the server has ended
  double load_seconds_ = 0;
  std::unique_ptr<Connection> connection_;
};

}  // namespace gatefold::cli

#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gatefold::bench {

// One of our own processes: this program again, with other flags, killed with its owner. It starts
// running; processes that are not measured are stopped, for a spinning one would take a core.
class Child {
 public:
  // Runs on the CPUs of `cpus` only (a list of numbers; empty: any).
  static absl::StatusOr<Child> Start(const std::vector<std::string>& flags,
                                     const std::vector<int>& cpus);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();

  void Stop();
  void Continue();

  // The first line it prints.
  absl::StatusOr<std::string> ReadLine();
  // One burst of a client: round-trip times in microseconds.
  absl::StatusOr<std::vector<float>> Burst(uint32_t burst_us);

 private:
  Child(pid_t pid, int in, int out) : pid_(pid), in_(in), out_(out) {}
  bool ReadAll(void* to, size_t bytes);

  pid_t pid_;
  int in_;   // its stdin
  int out_;  // its stdout
};

}  // namespace gatefold::bench

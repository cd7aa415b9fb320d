#pragma once

// What the three services' processes share: common options, and how a process describes itself.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/internal/v1/wire.pb.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/rpc/tls_options.h"

namespace gatefold {

inline constexpr uint32_t kWireVersion = 1;  // of gatefold.internal.v1
extern const char* const kVersion;           // the project's, as CMake knows it

struct WorkerOptions {
  std::string model_dir;
  std::string name;    // for people; empty: routers use the address by which they know it
  std::string listen;  // see gatefold/rpc/address.h
  int n_threads = 0;   // that compute; 0: the cores there are
  int spin_us = 0;     // how long they watch for work before they sleep; 0 where cores are shared
  std::string isa = "auto";
  int n_slices = 8;      // of a dense layer's MLP; all services of a cluster must agree
  int metrics_port = 0;  // 0: any free one; -1: none
  int health_port = -1;  // see gatefold/rpc/health_listener.h
  TlsOptions tls;        // of the port it listens on
  std::string node;      // failure domains
  std::string zone;

  // Also chooses the instruction set.
  absl::Status Validate() const;
};

// InvalidArgument for a --drain-limit that is none.
absl::Status CheckDrainLimit(absl::Duration limit);

// `n_threads`, or the cores this process may use where it is 0.
int NumThreads(int n_threads);

// What a flag says; `flag` is for the message.
// "64MiB", "2GiB", "1048576".
absl::StatusOr<uint64_t> ParseBytes(absl::string_view flag, absl::string_view text);
// "on" or "off".
absl::StatusOr<bool> ParseOnOff(absl::string_view flag, absl::string_view text);

// The last lines of a start, for people and scripts: where it listens, where /metrics is if it is
// anywhere, and "ready".
void PrintReady(const std::string& address, const std::string& metrics_address);

// For an incarnation or a router id; never 0.
uint64_t RandomId();

// Who this process is. Reads samples of the weights and runs the self-test of the kernels.
internal::v1::WorkerDescription DescribeWorker(const WorkerOptions& options,
                                               const ModelWeights& weights);
// The same for one that may have no weights.
internal::v1::WorkerDescription DescribeWorker(const WorkerOptions& options,
                                               const ModelConfig& config,
                                               const std::string& model_fingerprint);

}  // namespace gatefold

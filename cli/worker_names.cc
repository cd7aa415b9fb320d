#include "cli/worker_names.h"

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"

namespace gatefold::cli {

std::string KindName(const cluster::v1::Worker& worker) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(cluster::v1::WorkerKind_Name(worker.kind()), "WORKER_KIND_"));
}

std::string StateName(const cluster::v1::Worker& worker) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(cluster::v1::WorkerState_Name(worker.state()), "WORKER_STATE_"));
}

}  // namespace gatefold::cli

// expert-service: holds experts, and nothing else.

#include <memory>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "expert-service/expert_server.h"
#include "gatefold/base/command_line.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/process.h"
#include "gatefold/worker/worker.h"
#include "gatefold/worker/worker_flags.h"

ABSL_FLAG(std::string, model, "", "folder of the model (Hugging Face layout)");
ABSL_FLAG(std::string, listen, "", "host:port (port 0: any free one), unix:/path");
ABSL_FLAG(std::string, backend, "auto",
          "where experts are computed: cpu, cuda, or auto: a CUDA device where there is one");
ABSL_FLAG(std::string, weights, "checkpoint",
          "how experts are kept: checkpoint (as they are there), or quantised when loaded: int8 or "
          "int4; all shards of a cluster alike");
ABSL_FLAG(std::string, experts, "all",
          "all, none (a planner assigns them), I/N, or LAYER:FIRST-LAST,... (* for all)");
ABSL_FLAG(std::string, capacity, "0",
          "with --experts=none: memory that experts may take, as 80GiB; 0: no limit");
ABSL_FLAG(std::string, load_from, "auto",
          "with --experts=none: checkpoint, shards (others that have the expert, then the "
          "checkpoint), or auto: where it is faster; shards are asked if gatefold-manifest.json is "
          "beside config.json");
ABSL_FLAG(int, load_threads, 4, "with --experts=none: experts loaded at the same time");
ABSL_FLAG(int, spin_us, 0, "microseconds that idle compute threads spin before they sleep");
ABSL_FLAG(std::string, wait, "block", "how the network is awaited: block, spin or hybrid:50us");
ABSL_FLAG(bool, metrics_per_expert, false,
          "count rows by (layer, expert), too: a series for each expert held");
ABSL_FLAG(
    std::string, tls_peer_name, "",
    "name that peers' certificates must be for, too; where the CA certifies not only routers");
ABSL_FLAG(std::string, tls_server_name, "",
          "name that other shards' certificates must be for, where experts are loaded from them; "
          "default: the host in their address");
ABSL_FLAG(std::string, node, "", "failure domain: node");
ABSL_FLAG(std::string, zone, "", "failure domain: zone");
ABSL_FLAG(absl::Duration, drain_limit, absl::Seconds(30), "after SIGTERM, at most this long");

namespace gatefold {
namespace {

absl::StatusOr<std::unique_ptr<ExpertServer>> Start() {
  ExpertServiceOptions options;
  options.worker = WorkerOptionsFromFlags();
  options.worker.model_dir = absl::GetFlag(FLAGS_model);
  options.worker.listen = absl::GetFlag(FLAGS_listen);
  options.worker.spin_us = absl::GetFlag(FLAGS_spin_us);
  options.metrics_per_expert = absl::GetFlag(FLAGS_metrics_per_expert);
  options.worker.tls.peer_name = absl::GetFlag(FLAGS_tls_peer_name);
  options.worker.tls.server_name = absl::GetFlag(FLAGS_tls_server_name);
  options.worker.node = absl::GetFlag(FLAGS_node);
  options.worker.zone = absl::GetFlag(FLAGS_zone);
  options.backend = absl::GetFlag(FLAGS_backend);
  options.weights = absl::GetFlag(FLAGS_weights);
  options.experts = absl::GetFlag(FLAGS_experts);
  options.load_from = absl::GetFlag(FLAGS_load_from);
  options.load_threads = absl::GetFlag(FLAGS_load_threads);
  GF_ASSIGN_OR_RETURN(options.capacity_bytes,
                      ParseBytes("--capacity", absl::GetFlag(FLAGS_capacity)));
  options.wait = absl::GetFlag(FLAGS_wait);
  options.drain_limit = absl::GetFlag(FLAGS_drain_limit);
  return ExpertServer::Start(options);
}

}  // namespace
}  // namespace gatefold

int main(int argc, char** argv) {
  gatefold::InitProcess();
  absl::SetProgramUsageMessage("holds experts of a model and computes them for routers");
  gatefold::ParseFlags(argc, argv, gatefold::VersionOf("expert-service"));
  return gatefold::ServeUntilTerminated("expert-service", gatefold::Start);
}

// expert-service: holds experts, and nothing else.

#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "expert-service/expert_server.h"
#include "gatefold/base/command_line.h"
#include "gatefold/rpc/process.h"
#include "gatefold/worker/worker.h"

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
ABSL_FLAG(std::string, name, "", "name for people; default: the address");
ABSL_FLAG(int, threads, 0, "threads that compute; 0: the cores there are");
ABSL_FLAG(int, spin_us, 0, "microseconds that idle compute threads spin before they sleep");
ABSL_FLAG(std::string, isa, "auto", "auto, avx512, avx2 or scalar; the numbers are the same");
ABSL_FLAG(int, n_slices, 8, "parts of a dense layer's MLP; the same in all services of a cluster");
ABSL_FLAG(std::string, wait, "block", "how the network is awaited: block, spin or hybrid:50us");
ABSL_FLAG(int, metrics_port, 0, "port of /metrics; 0: any free one; -1: none");
ABSL_FLAG(bool, metrics_per_expert, false,
          "count rows by (layer, expert), too: a series for each expert held");
ABSL_FLAG(int, health_port, -1, "port of plaintext health checks; 0: any free one; -1: none");
ABSL_FLAG(std::string, tls_cert_file, "",
          "own certificate chain (PEM): TLS on --listen, but for unix: sockets");
ABSL_FLAG(std::string, tls_key_file, "", "its private key (PEM, mode 0600)");
ABSL_FLAG(std::string, tls_ca_file, "",
          "CA (PEM): peers must present a certificate of it");
ABSL_FLAG(std::string, tls_peer_name, "",
          "name that peers' certificates must be for, too; where the CA certifies not only routers");
ABSL_FLAG(std::string, tls_server_name, "",
          "name that other shards' certificates must be for, where experts are loaded from them; "
          "default: the host in their address");
ABSL_FLAG(std::string, node, "", "failure domain: node");
ABSL_FLAG(std::string, zone, "", "failure domain: zone");
ABSL_FLAG(absl::Duration, drain_limit, absl::Seconds(30), "after SIGTERM, at most this long");

int main(int argc, char** argv) {
  gatefold::InitProcess();
  absl::SetProgramUsageMessage("holds experts of a model and computes them for routers");
  gatefold::ParseFlags(argc, argv);
  gatefold::ExpertServiceOptions options;
  options.worker.model_dir = absl::GetFlag(FLAGS_model);
  options.worker.listen = absl::GetFlag(FLAGS_listen);
  options.worker.name = absl::GetFlag(FLAGS_name);
  options.worker.n_threads = absl::GetFlag(FLAGS_threads);
  options.worker.spin_us = absl::GetFlag(FLAGS_spin_us);
  options.worker.isa = absl::GetFlag(FLAGS_isa);
  options.worker.n_slices = absl::GetFlag(FLAGS_n_slices);
  options.worker.metrics_port = absl::GetFlag(FLAGS_metrics_port);
  options.metrics_per_expert = absl::GetFlag(FLAGS_metrics_per_expert);
  options.worker.health_port = absl::GetFlag(FLAGS_health_port);
  options.worker.tls.cert_file = absl::GetFlag(FLAGS_tls_cert_file);
  options.worker.tls.key_file = absl::GetFlag(FLAGS_tls_key_file);
  options.worker.tls.ca_file = absl::GetFlag(FLAGS_tls_ca_file);
  options.worker.tls.peer_name = absl::GetFlag(FLAGS_tls_peer_name);
  options.worker.tls.server_name = absl::GetFlag(FLAGS_tls_server_name);
  options.worker.node = absl::GetFlag(FLAGS_node);
  options.worker.zone = absl::GetFlag(FLAGS_zone);
  options.backend = absl::GetFlag(FLAGS_backend);
  options.weights = absl::GetFlag(FLAGS_weights);
  options.experts = absl::GetFlag(FLAGS_experts);
  options.load_from = absl::GetFlag(FLAGS_load_from);
  options.load_threads = absl::GetFlag(FLAGS_load_threads);
  const absl::StatusOr<uint64_t> capacity = gatefold::ParseBytes(absl::GetFlag(FLAGS_capacity));
  if (!capacity.ok()) {
    std::fprintf(stderr, "expert-service: --capacity: %s\n", capacity.status().ToString().c_str());
    return 2;
  }
  options.capacity_bytes = *capacity;
  options.wait = absl::GetFlag(FLAGS_wait);
  options.drain_limit = absl::GetFlag(FLAGS_drain_limit);

  auto server = gatefold::ExpertServer::Start(options);
  if (!server.ok()) {
    std::fprintf(stderr, "expert-service: %s\n", server.status().ToString().c_str());
    return absl::IsInvalidArgument(server.status()) ? 2 : 1;
  }
  gatefold::PrintReady((*server)->address(), (*server)->metrics_address());
  gatefold::WaitForTermination(absl::InfiniteFuture());
  (*server)->Drain();
  return 0;
}

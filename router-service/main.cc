// router-service: gateway, scheduler, gate, dispatch and fold.

#include <algorithm>
#include <cstdio>
#include <tuple>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "attention-service/attention_host.h"
#include "attention-service/local_attention_client.h"
#include "gatefold/base/command_line.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/health_listener.h"
#include "gatefold/rpc/process.h"
#include "gatefold/worker/metrics_host.h"
#include "gatefold/worker/worker.h"
#include "gatefold/worker/worker_flags.h"
#include "router-service/cluster_doors.h"
#include "router-service/loading_server.h"
#include "router-service/readiness.h"
#include "router-service/router_meter.h"
#include "router-service/router_server.h"

ABSL_FLAG(std::string, model, "", "folder of the model; norms, gates and tokenizer are read");
ABSL_FLAG(std::string, model_name, "", "as requests name it; default: the folder's name");
ABSL_FLAG(std::string, listen, "127.0.0.1:7070", "host:port (port 0: any free one), unix:/path");
ABSL_FLAG(std::string, admin_listen, "",
          "host:port or unix:/path for operators: AdminService, as `gatefold drain` calls it; keep "
          "it from those who only send requests; empty: none");
ABSL_FLAG(std::string, experts, "",
          "addresses of the expert-services, with commas; dns:NAME:PORT for all that a name has");
ABSL_FLAG(std::string, attention, "", "addresses of the attention-services, likewise");
ABSL_FLAG(bool, colocated, false, "compute attention in this process");
ABSL_FLAG(int, lanes, 1, "micro-batches that overlap attention and experts");
ABSL_FLAG(int, max_step_tokens, 512, "rows of one step, decode and prefill together");
ABSL_FLAG(int, max_running, 64, "sequences that run at once; as many again may wait for an expert");
ABSL_FLAG(int, max_waiting, 256, "requests that wait; beyond it they are refused");
ABSL_FLAG(std::string, wire_dtype, "float32", "hidden states between services, or bfloat16");
ABSL_FLAG(std::string, wait, "block", "how peers are awaited: block, spin or hybrid:50us");
ABSL_FLAG(
    std::string, planner, "off",
    "on: plan which shard (of those with --experts=none) holds which experts; one router of a "
    "cluster does. only: that and nothing else. off: another router does, or none is needed");
ABSL_FLAG(int, min_replicas, 1, "shards that hold each expert at least, as far as there is room");
ABSL_FLAG(std::string, hedge, "on",
          "on: a call that is late is sent to a replica as well, and the first answer wins; off");
ABSL_FLAG(double, hedge_quantile, 0.95,
          "a call is late after twice this quantile of the replica's recent latencies");
ABSL_FLAG(absl::Duration, hedge_floor, absl::Milliseconds(5), "no call is late before that");
ABSL_FLAG(std::string, hedge_budget, "10%", "hedges, of all calls, at most in the long run");
ABSL_FLAG(std::string, verify, "0%",
          "share of calls whose answers are computed again on a replica and compared bit for bit");
ABSL_FLAG(std::string, on_missing_expert, "wait",
          "for rows whose expert no live shard holds: wait, fail (their requests, at once) or "
          "renormalise (go on without it; the response says so)");
ABSL_FLAG(absl::Duration, step_retry_timeout, absl::Seconds(30),
          "how long a request whose steps fail is tried again; its deadline may be sooner");
ABSL_FLAG(bool, allow_mixed_numerics, false, "use shards of another numerics class, too");
ABSL_FLAG(int, spin_us, 0, "microseconds that idle compute threads spin before they sleep");
ABSL_FLAG(
    std::string, attention_backend, "cpu",
    "if colocated: where attention is computed: cpu, cuda, or auto: a CUDA device where there "
    "is one");
ABSL_FLAG(std::string, kv_memory, "1GiB", "memory of the KV cache, if colocated");
ABSL_FLAG(std::string, prefix_cache, "on",
          "if colocated: prompts that begin like earlier ones are not computed again; or off");
ABSL_FLAG(absl::Duration, max_request_time, absl::Hours(24),
          "how long a request may take, waiting included; its deadline may be sooner");
ABSL_FLAG(
    absl::Duration, max_connection_age, absl::InfiniteDuration(),
    "then clients are told to connect again, so that added routers get work; streams may end");
ABSL_FLAG(std::string, api_keys_file, "",
          "API keys (mode 0600; `gatefold keys` makes lines for it): callers need one of them");
ABSL_FLAG(
    std::string, worker_tls, "auto",
    "auto: workers are reached with TLS by --worker-tls-ca-file or else --tls-ca-file, but at "
    "unix: sockets; off: in plaintext");
ABSL_FLAG(std::string, worker_tls_ca_file, "",
          "CA (PEM) that workers' certificates are verified with; default: all three as --tls-*");
ABSL_FLAG(std::string, worker_tls_cert_file, "", "certificate (PEM) that workers are shown");
ABSL_FLAG(std::string, worker_tls_key_file, "", "its private key (PEM, mode 0600)");
ABSL_FLAG(std::string, worker_tls_server_name, "",
          "name that workers' certificates must be for; default: the host of their address");
ABSL_FLAG(absl::Duration, drain_limit, absl::Seconds(60), "after SIGTERM, at most this long");

namespace gatefold {
namespace {

absl::StatusOr<RouterOptions> OptionsFromFlags() {
  RouterOptions options;
  options.worker = WorkerOptionsFromFlags();
  options.worker.model_dir = absl::GetFlag(FLAGS_model);
  options.worker.listen = absl::GetFlag(FLAGS_listen);
  options.admin_listen = absl::GetFlag(FLAGS_admin_listen);
  options.worker.spin_us = absl::GetFlag(FLAGS_spin_us);
  options.model_name = absl::GetFlag(FLAGS_model_name);
  options.n_lanes = absl::GetFlag(FLAGS_lanes);
  options.wire_dtype = absl::GetFlag(FLAGS_wire_dtype);
  options.wait = absl::GetFlag(FLAGS_wait);
  options.scheduler.max_step_tokens = absl::GetFlag(FLAGS_max_step_tokens);
  options.scheduler.max_running = absl::GetFlag(FLAGS_max_running);
  options.scheduler.max_waiting = absl::GetFlag(FLAGS_max_waiting);
  options.gateway.max_request_time = absl::GetFlag(FLAGS_max_request_time);
  options.max_connection_age = absl::GetFlag(FLAGS_max_connection_age);
  options.drain_limit = absl::GetFlag(FLAGS_drain_limit);
  options.scheduler.step_retry_timeout = absl::GetFlag(FLAGS_step_retry_timeout);
  options.on_missing_expert = absl::GetFlag(FLAGS_on_missing_expert);
  GF_ASSIGN_OR_RETURN(options.hedge.enabled, ParseOnOff("--hedge", absl::GetFlag(FLAGS_hedge)));
  options.hedge.quantile = absl::GetFlag(FLAGS_hedge_quantile);
  options.hedge.floor = absl::GetFlag(FLAGS_hedge_floor);
  for (const auto& [flag, value, share] :
       {std::tuple("--hedge-budget", absl::GetFlag(FLAGS_hedge_budget), &options.hedge.budget),
        std::tuple("--verify", absl::GetFlag(FLAGS_verify), &options.verify_share)}) {
    const absl::StatusOr<double> parsed = ParseShare(value);
    if (!parsed.ok()) return Annotate(parsed.status(), flag);
    *share = *parsed;
  }
  return options;
}

// Sockets of this host only.
bool AllLocal(const WorkerTargets& targets) {
  return targets.names.empty() && std::all_of(targets.addresses.begin(), targets.addresses.end(),
                                              [](const std::string& text) {
                                                const absl::StatusOr<Address> address =
                                                    ParseAddress(text);
                                                return address.ok() && address->local();
                                              });
}

// The files for connections to workers; empty: plaintext.
absl::StatusOr<TlsOptions> WorkerTlsFromFlags(const TlsOptions& front,
                                              const ClusterOptions& cluster) {
  const std::string mode = absl::GetFlag(FLAGS_worker_tls);
  if (mode != "auto" && mode != "off") {
    return absl::InvalidArgumentError(
        absl::StrCat("--worker-tls is \"", mode, "\", must be auto or off"));
  }
  TlsOptions tls;
  if (mode == "off") return tls;
  tls.cert_file = absl::GetFlag(FLAGS_worker_tls_cert_file);
  tls.key_file = absl::GetFlag(FLAGS_worker_tls_key_file);
  tls.ca_file = absl::GetFlag(FLAGS_worker_tls_ca_file);
  if (tls.empty() && !front.ca_file.empty()) tls = front;
  if (tls.empty() && !front.empty() &&
      !(AllLocal(cluster.experts) && AllLocal(cluster.attention))) {
    return absl::InvalidArgumentError(
        "callers come in with TLS, but nothing says how workers are reached: give "
        "--worker-tls-ca-file, or --worker-tls=off if something else protects those connections");
  }
  tls.server_name = absl::GetFlag(FLAGS_worker_tls_server_name);
  return tls;
}

absl::StatusOr<ClusterOptions> ClusterFromFlags(const TlsOptions& front) {
  ClusterOptions cluster;
  for (const auto& [flag, value, targets] :
       {std::tuple("--experts", absl::GetFlag(FLAGS_experts), &cluster.experts),
        std::tuple("--attention", absl::GetFlag(FLAGS_attention), &cluster.attention)}) {
    const absl::StatusOr<WorkerTargets> parsed = WorkerTargets::Parse(value);
    if (!parsed.ok()) return Annotate(parsed.status(), flag);
    *targets = *parsed;
  }
  cluster.allow_mixed_numerics = absl::GetFlag(FLAGS_allow_mixed_numerics);
  const std::string planner = absl::GetFlag(FLAGS_planner);
  if (planner != "off" && planner != "on" && planner != "only") {
    return absl::InvalidArgumentError(
        absl::StrCat("--planner is \"", planner, "\", must be off, on or only"));
  }
  cluster.planner = planner != "off";
  cluster.min_replicas = absl::GetFlag(FLAGS_min_replicas);
  if (cluster.min_replicas < 1 || cluster.min_replicas > 255) {
    return absl::InvalidArgumentError(
        absl::StrCat("--min-replicas is ", cluster.min_replicas, ", must be 1 to 255"));
  }
  if (planner != "only" && absl::GetFlag(FLAGS_colocated) != cluster.attention.empty()) {
    return absl::InvalidArgumentError("give either --attention or --colocated");
  }
  GF_ASSIGN_OR_RETURN(const TlsOptions tls, WorkerTlsFromFlags(front, cluster));
  absl::StatusOr<TransportSecurity> security = TransportSecurity::ForClient(tls);
  if (!security.ok()) return Annotate(security.status(), "connections to workers (--worker-tls-*)");
  cluster.security = *std::move(security);
  return cluster;
}

absl::StatusOr<std::unique_ptr<RouterMeter>> StartMeter(const RouterOptions& options,
                                                        const ClusterOptions& cluster,
                                                        const ClusterDoors& doors) {
  GF_ASSIGN_OR_RETURN(auto meter, RouterMeter::Create(options));
  meter->Watch(&doors.directory(), &doors.counters());
  meter->Watch(doors.traffic());
  meter->WatchCertificate("workers",
                          [security = cluster.security] { return security.not_after(); });
  if (doors.planner() != nullptr) meter->Watch(doors.planner());
  return meter;
}

// Plans until it is told to end. No request waits for it: shards keep what they were told last.
absl::Status PlanOnly(const RouterOptions& options, const ClusterOptions& cluster,
                      const ModelWeights& weights, HealthListener* health) {
  GF_ASSIGN_OR_RETURN(const auto doors, ClusterDoors::Connect(cluster, options, weights));
  GF_ASSIGN_OR_RETURN(const auto meter, StartMeter(options, cluster, *doors));
  ClusterWatch watch(doors->view());
  std::unique_ptr<AdminServer> admin;
  if (!options.admin_listen.empty()) {
    ServerOptions server = options.GuardedServer();
    server.addresses = {options.admin_listen};
    server.on_call_done = [meter = meter.get()](const CallRecord& call) {
      meter->OnCallDone(call);
    };
    GF_ASSIGN_OR_RETURN(admin, AdminServer::Start(std::move(server), {doors->view(), &watch},
                                                  /*gateway=*/nullptr, doors->admin()));
    meter->WatchCertificate("listen",
                            [security = options.security] { return security.not_after(); });
  }
  health->SetReady(true);  // it has nothing to wait for: what it sees, it plans
  PrintReady(admin == nullptr ? "none, planner only" : admin->address(), meter->address());
  WaitForTermination(absl::InfiniteFuture());
  health->SetReady(false);
  meter->StopWatching();
  return absl::OkStatus();
}

// For the colocated shape.
absl::StatusOr<std::unique_ptr<AttentionHost>> LoadAttention(const RouterOptions& options,
                                                             const ModelWeights& weights,
                                                             ThreadPool* threads) {
  AttentionHostOptions attention;
  attention.backend = absl::GetFlag(FLAGS_attention_backend);
  GF_ASSIGN_OR_RETURN(attention.kv_memory_bytes,
                      ParseBytes("--kv-memory", absl::GetFlag(FLAGS_kv_memory)));
  GF_ASSIGN_OR_RETURN(attention.prefix_cache,
                      ParseOnOff("--prefix-cache", absl::GetFlag(FLAGS_prefix_cache)));
  // What was computed without an expert must not be taken for more than that.
  if (options.on_missing_expert == "renormalise") attention.prefix_cache = false;
  LoadProgress progress({.label = "attention", .total_bytes = weights.role_bytes().attention});
  GF_ASSIGN_OR_RETURN(auto host, AttentionHost::Load(weights, attention, threads, &progress));
  progress.Finish();
  return host;
}

// Tells callers to wait meanwhile. Returns the address at which it listened, or "" when told to
// end.
absl::StatusOr<std::string> AwaitReady(const RouterOptions& options, ClusterDoors* doors,
                                       RouterMeter* meter) {
  ServerOptions server = options.GuardedServer();
  server.addresses = {options.worker.listen};
  server.on_call_done = [meter](const CallRecord& call) { meter->OnCallDone(call); };
  ClusterWatch watch(doors->view());
  GF_ASSIGN_OR_RETURN(const auto loading,
                      LoadingServer::Start(std::move(server), {doors->view(), &watch, meter},
                                           [doors] { return doors->WhyNotReady(); }));
  return doors->AwaitReady() ? loading->address() : "";
}

absl::Status Serve() {
  GF_ASSIGN_OR_RETURN(RouterOptions options, OptionsFromFlags());
  GF_RETURN_IF_ERROR(options.Validate());
  GF_ASSIGN_OR_RETURN(options.security, TransportSecurity::ForServer(options.worker.tls));
  if (const std::string file = absl::GetFlag(FLAGS_api_keys_file); !file.empty()) {
    GF_ASSIGN_OR_RETURN(options.api_keys, ApiKeyring::Open({file}));
  }
  GF_ASSIGN_OR_RETURN(const ClusterOptions cluster, ClusterFromFlags(options.worker.tls));
  GF_ASSIGN_OR_RETURN(const auto health, HealthListener::Start(MetricsHost(options.worker.listen),
                                                               options.worker.health_port));
  GF_ASSIGN_OR_RETURN(const auto weights,
                      ModelWeights::Open(options.worker.model_dir, {options.worker.n_slices}));
  if (absl::GetFlag(FLAGS_planner) == "only") {
    health->SetStarted();
    return PlanOnly(options, cluster, *weights, health.get());
  }
  ThreadPool threads(NumThreads(options.worker.n_threads),
                     absl::Microseconds(options.worker.spin_us));
  GF_ASSIGN_OR_RETURN(const auto doors, ClusterDoors::Connect(cluster, options, *weights));
  GF_ASSIGN_OR_RETURN(const auto meter, StartMeter(options, cluster, *doors));

  std::unique_ptr<AttentionHost> host;
  std::function<absl::StatusOr<std::unique_ptr<AttentionClient>>(int)> local_attention;
  if (absl::GetFlag(FLAGS_colocated)) {
    GF_ASSIGN_OR_RETURN(host, LoadAttention(options, *weights, &threads));
    local_attention = [&host](int) -> absl::StatusOr<std::unique_ptr<AttentionClient>> {
      return std::make_unique<LocalAttentionClient>(host->runner());
    };
  }
  // Its own weights. The shards may take any time; that is readiness.
  health->SetStarted();
  GF_ASSIGN_OR_RETURN(options.worker.listen, AwaitReady(options, doors.get(), meter.get()));
  if (options.worker.listen.empty()) return absl::OkStatus();
  GF_ASSIGN_OR_RETURN(
      const auto server,
      RouterServer::Start(options, *weights, &threads,
                          doors->Doors(local_attention, host ? host->max_sequence_tokens() : 0),
                          meter.get()));
  if (!server->admin_address().empty()) {
    std::printf("admin on %s\n", server->admin_address().c_str());
  }
  auto readiness =
      std::make_unique<Readiness>(&doors->directory(), doors->remote_attention(), health.get());
  PrintReady(server->address(), meter->address());
  WaitForTermination(absl::InfiniteFuture());
  readiness.reset();
  server->Drain();
  return absl::OkStatus();
}

}  // namespace
}  // namespace gatefold

int main(int argc, char** argv) {
  gatefold::InitProcess();
  absl::SetProgramUsageMessage("serves the public API and routes tokens to their experts");
  gatefold::ParseFlags(argc, argv, gatefold::VersionOf("router-service"));
  if (const absl::Status status = gatefold::Serve(); !status.ok()) {
    return gatefold::ExitCode("router-service", status);
  }
  return 0;
}

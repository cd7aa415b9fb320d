// attention-service: embedding, attention with the KV cache, LM head, sampling.

#include <memory>

#include "absl/flags/flag.h"
#include "absl/flags/usage.h"
#include "attention-service/attention_server.h"
#include "gatefold/base/command_line.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/process.h"
#include "gatefold/worker/worker.h"
#include "gatefold/worker/worker_flags.h"

ABSL_FLAG(std::string, model, "", "folder of the model (Hugging Face layout)");
ABSL_FLAG(std::string, listen, "", "host:port (port 0: any free one), unix:/path");
ABSL_FLAG(std::string, backend, "auto",
          "where attention is computed: cpu, cuda, or auto: a CUDA device where there is one");
// A layer is four loops, microseconds apart; experts wait meanwhile, so the cores are free.
ABSL_FLAG(int, spin_us, 50, "microseconds that idle compute threads spin before they sleep");
ABSL_FLAG(std::string, kv_memory, "1GiB", "memory of the KV cache");
ABSL_FLAG(std::string, prefix_cache, "on",
          "on: prompts that begin like earlier ones are not computed again; or off");
ABSL_FLAG(int, max_sequence_tokens, 0, "prompt and output together; 0: the model's length");
ABSL_FLAG(std::string, wait, "block", "how the network is awaited: block, spin or hybrid:50us");
ABSL_FLAG(
    std::string, tls_peer_name, "",
    "name that peers' certificates must be for, too; where the CA certifies not only routers");
ABSL_FLAG(std::string, node, "", "failure domain: node");
ABSL_FLAG(std::string, zone, "", "failure domain: zone");
ABSL_FLAG(absl::Duration, drain_limit, absl::Seconds(30), "after SIGTERM, at most this long");

namespace gatefold {
namespace {

absl::StatusOr<std::unique_ptr<AttentionServer>> Start() {
  AttentionServiceOptions options;
  options.worker = WorkerOptionsFromFlags();
  options.worker.model_dir = absl::GetFlag(FLAGS_model);
  options.worker.listen = absl::GetFlag(FLAGS_listen);
  options.worker.spin_us = absl::GetFlag(FLAGS_spin_us);
  options.worker.tls.peer_name = absl::GetFlag(FLAGS_tls_peer_name);
  options.worker.node = absl::GetFlag(FLAGS_node);
  options.worker.zone = absl::GetFlag(FLAGS_zone);
  GF_ASSIGN_OR_RETURN(options.host.kv_memory_bytes,
                      ParseBytes("--kv-memory", absl::GetFlag(FLAGS_kv_memory)));
  options.host.backend = absl::GetFlag(FLAGS_backend);
  GF_ASSIGN_OR_RETURN(options.host.prefix_cache,
                      ParseOnOff("--prefix-cache", absl::GetFlag(FLAGS_prefix_cache)));
  options.host.max_sequence_tokens = absl::GetFlag(FLAGS_max_sequence_tokens);
  options.wait = absl::GetFlag(FLAGS_wait);
  options.drain_limit = absl::GetFlag(FLAGS_drain_limit);
  return AttentionServer::Start(options);
}

}  // namespace
}  // namespace gatefold

int main(int argc, char** argv) {
  gatefold::InitProcess();
  absl::SetProgramUsageMessage("computes attention and holds the KV cache for routers");
  gatefold::ParseFlags(argc, argv, gatefold::VersionOf("attention-service"));
  return gatefold::ServeUntilTerminated("attention-service", gatefold::Start);
}

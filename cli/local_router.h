#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gatefold/rpc/tls.h"
#include "gatefold/tensor/quantise.h"
#include "grpcpp/channel.h"
#include "router-service/gateway/api_keyring.h"

namespace gatefold {

// How to serve a model in this process. Zero or empty means the default.
struct LocalRouterOptions {
  std::string model_dir;
  std::string model_name;                      // as requests name it; default: the folder's name
  std::string listen_address;                  // host:port or unix:path; empty: only channel()
  TransportSecurity security;                  // of listen_address
  std::shared_ptr<const ApiKeyring> api_keys;  // null: everybody may call
  int n_threads = 0;                           // default: the cores there are
  int n_lanes = 1;
  int n_slices = 8;         // of a dense layer's MLP; part of the model as loaded
  int max_step_tokens = 0;  // default: 512, and 2048 where rows stay on a device
  int max_running = 64;
  int max_waiting = 256;
  size_t kv_memory_bytes = size_t{1} << 30;
  bool prefix_cache = true;
  std::string isa = "auto";
  // Where experts and attention are computed: cpu, cuda, or auto, which is CUDA for each of the two
  // that it can be had for and that fits into the device's memory.
  std::string backend = "cpu";
  WeightKind weights = WeightKind::kCheckpoint;  // of experts
  std::string wire_dtype = "float32";
  int metrics_port = -1;                           // -1: none; 0: any
  absl::Duration drain_limit = absl::Seconds(60);  // what Drain() leaves to requests under way
  bool show_load_progress = true;  // and which device computes, where it is not the CPU
};

// Router, attention and experts in one process: the same scheduler, step loop and gateway as a
// cluster, with clients that call instead of sending. Destruction cancels what runs and joins all
// threads.
class LocalRouter {
 public:
  static absl::StatusOr<std::unique_ptr<LocalRouter>> Start(const LocalRouterOptions& options);
  virtual ~LocalRouter() = default;

  // Refuses new requests, finishes those under way, and stops serving.
  virtual void Drain() = 0;

  // To the public API (gatefold.inference.v1, gatefold.cluster.v1) without a socket.
  virtual std::shared_ptr<grpc::Channel> channel() = 0;

  // Where the gateway listens, with the port that was bound; empty if it does not.
  virtual std::string listen_address() const = 0;
  virtual std::string metrics_address() const = 0;
};

}  // namespace gatefold

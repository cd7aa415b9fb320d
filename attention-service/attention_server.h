#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "attention-service/attention_service.h"
#include "attention-service/options.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/rpc/health.h"
#include "gatefold/rpc/health_listener.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/tls.h"

namespace gatefold {

class AttentionMeter;

// One attention-service: weights, KV cache, threads, and the gRPC server in front of them.
class AttentionServer {
 public:
  // Returns when the weights are loaded and the server listens.
  static absl::StatusOr<std::unique_ptr<AttentionServer>> Start(
      const AttentionServiceOptions& options);
  ~AttentionServer();

  std::string address() const { return server_->address(); }
  std::string metrics_address() const;

  // Takes no new sequences, waits for those it has, and stops.
  void Drain();

 private:
  explicit AttentionServer(const AttentionServiceOptions& options);
  absl::Status Load();
  absl::Status Listen();

  const AttentionServiceOptions options_;
  TransportSecurity security_;
  ThreadPool threads_;
  std::unique_ptr<ModelWeights> weights_;
  std::unique_ptr<AttentionHost> host_;
  std::unique_ptr<AttentionMeter> meter_;
  std::unique_ptr<AttentionService> service_;
  HealthService health_;
  std::unique_ptr<HealthListener> probes_;
  std::unique_ptr<RpcServer> server_;  // last: its handlers use all of the above
};

}  // namespace gatefold

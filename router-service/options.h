#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/tls.h"
#include "gatefold/worker/worker.h"
#include "router-service/dispatch/hedging.h"
#include "router-service/gateway/api_keyring.h"
#include "router-service/gateway/gateway_options.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {

struct RouterOptions {
  // listen may be empty where requests come in process only.
  WorkerOptions worker;
  std::string admin_listen;    // for operators; empty: nobody can drain workers through this router
  TransportSecurity security;  // of the ports it listens on, from worker.tls
  std::shared_ptr<const ApiKeyring> api_keys;  // who may call; null: everybody
  std::string model_name;                      // as requests name it; default: the folder's name
  int n_lanes = 1;
  std::string wire_dtype = "float32";  // of hidden states between services, or "bfloat16"
  std::string wait = "block";          // how lanes await their peers; see wait_policy.h
  SchedulerOptions scheduler;          // max_sequence_tokens is filled in from the attention side
  HedgeOptions hedge;
  double verify_share = 0;  // of all calls to shards: computed again on a replica and compared
  // What becomes of a row that needs an expert which no live shard holds: "wait" until one does or
  // its request's time is over, "fail" at once, or "renormalise": go on without it and say so.
  std::string on_missing_expert = "wait";
  GatewayOptions gateway;
  // Then a client is told to connect again, to whatever router its balancer chooses; what it has
  // under way may end. Else routers that are added get no work from clients that stay.
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration drain_limit = absl::Seconds(60);  // after SIGTERM, for requests under way

  // Of a port for callers or operators, without its address: TLS and API keys.
  ServerOptions GuardedServer() const;

  absl::Status Validate() const;
  // model_name, or its default.
  std::string ModelName() const;
  DType WireDType() const { return wire_dtype == "bfloat16" ? DType::kBF16 : DType::kF32; }
  // Of scheduler.max_step_tokens as many as the model allows: answers of one step must fit a
  // message.
  int MaxStepTokens(const ModelConfig& config) const;
};

// "5%" or "0.05" as 0.05; nothing outside of 0 and 1.
absl::StatusOr<double> ParseShare(absl::string_view text);

}  // namespace gatefold

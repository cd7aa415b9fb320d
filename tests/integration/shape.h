#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "grpcpp/channel.h"
#include "tests/integration/fault_proxy.h"
#include "tests/integration/process.h"

namespace gatefold {

// One way to serve a model. Every shape gives the same bits, which is what the tests look at.
struct ShapeOptions {
  enum class Kind { kLocal, kColocated, kCluster };
  Kind kind = Kind::kLocal;
  // One expert-service per entry, in the form of its --experts flag.
  std::vector<std::string> experts = {"0/2", "1/2"};
  std::map<int, std::string> models;  // by index: the folder of a service that has another one
  std::map<int, std::vector<std::string>> expert_flags = {};  // by index: more of them
  int n_started = -1;   // so many of them are started at once, -1: all; see StartExpert
  int n_attention = 1;  // attention-services
  std::vector<std::string> attention_addresses = {};  // those of another shape, which outlives it
  std::string kv_memory = "64MiB";
  bool prefix_cache = true;
  std::vector<std::string> router_flags;
  int n_routers = 1;
  std::vector<std::string> planner_flags;  // not empty: a planner is a process of its own
  bool proxied = false;                    // a FaultProxy stands before each expert-service
  bool proxied_attention = false;          // and before each attention-service
  bool metrics = false;                    // services of their own serve /metrics
  int n_lanes = 1;
  int n_threads = 1;
  int max_step_tokens = 512;
  std::string isa = "auto";
  std::string backend = "cpu";            // of the experts; kLocal: of attention too
  std::string attention_backend = "cpu";  // of the attention-services
  std::string weights = "checkpoint";     // as experts are kept
  std::string wire_dtype = "float32";
};

const char* ShapeName(ShapeOptions::Kind kind);

class Shape {
 public:
  static absl::StatusOr<std::unique_ptr<Shape>> Start(const std::string& model_dir,
                                                      const ShapeOptions& options);
  virtual ~Shape() = default;

  // To the public API of a router.
  virtual std::shared_ptr<grpc::Channel> channel(int index = 0) = 0;

  // The services, if they are processes of their own; index as in ShapeOptions::experts.
  virtual Process* expert(int /*index*/) { return nullptr; }
  // Starts one that was not started at once, and does not wait for it.
  virtual absl::Status StartExpert(int /*index*/) { return absl::UnimplementedError("no process"); }
  virtual FaultProxy* proxy(int /*index*/) { return nullptr; }
  virtual FaultProxy* attention_proxy(int /*index*/ = 0) { return nullptr; }
  // As in the metric `shard` and in logs: where the router reaches it.
  virtual std::string expert_address(int /*index*/) { return ""; }
  virtual Process* attention(int /*index*/ = 0) { return nullptr; }
  virtual std::string attention_address(int /*index*/ = 0) { return ""; }
  virtual Process* router(int /*index*/ = 0) { return nullptr; }
  virtual Process* planner() { return nullptr; }
};

}  // namespace gatefold

#pragma once

#include <array>
#include <cstdint>

#include "cli/plan/architecture.h"
#include "cli/plan/traffic.h"
#include "cli/plan/weight_format.h"

namespace gatefold::cli {

// What machines and network do. Defaults are the CPU machine of docs/numbers.md where something was
// measured there; docs/scaling.md says which were not.
struct Machine {
  double memory_bandwidth = 35e9;  // bytes/s that a pod reads weights with (measured: 35 to 39)
  double compute = 200e9;          // operations/s of a pod's matrix products (measured: 202)
  double hop = 81.3e-6;            // s, of a small message there and back (measured: loopback TCP)
  double stream = 54.8e-6;         // s, per peer of a fan-out (measured: 219 us for four)
  double copy_bandwidth = 4.5e9;   // bytes/s through the router's stack, both ways added up
                                   // (measured: 1 MiB there and back takes 461 us more than 8 KiB)
  double network_bandwidth = 25e9 / 8;  // bytes/s of the router's link (assumed)
  double network_latency = 25e-6;       // s, one way, beside the hop (assumed)
};

// How the cluster is used.
struct Workload {
  int n_rows = 64;        // of a step: sequences that decode
  int n_context = 4096;   // positions that each looks back at
  int n_attention = 1;    // attention-services; sequences are shared evenly
  double wire_bytes = 4;  // of a number in a hidden state
  double kv_bytes = 4;    // of a number in the KV cache
};

// Where the time of a decode step goes, each added up over all layers, in seconds. One lane: each
// part waits for the one before.
enum class StepPart { kAttention, kExperts, kRouter, kMessages, kPayload, kNetwork };
inline constexpr int kStepParts = 6;
const char* StepPartName(StepPart part);

struct StepCost {
  std::array<double, kStepParts> seconds{};
  // Bytes over the router's link per token and layer; a message is one way.
  double attention_bytes = 0;                              // to attention and back
  double sent_bytes = 0;                                   // to shards
  double answered_bytes = 0;                               // from shards
  double n_attention_messages = 0, n_expert_messages = 0;  // per step and layer, both ways

  double total() const;
  StepPart bottleneck() const;
  // Seconds of the resource that is busiest if enough lanes overlap: attention-services, shards, or
  // the router (router, messages, payload). What the network takes to deliver occupies nobody.
  double busiest() const;
};

StepCost CostOfStep(const Architecture& model, const WeightFormat& format, const Machine& machine,
                    const Workload& workload, const LayerTraffic& traffic);

// Of one attention-service with the workload's share of sequences.
double KvBytes(const Architecture& model, const Workload& workload);

}  // namespace gatefold::cli

#include "gatefold/metrics/metric_table.h"

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

using Buckets = std::vector<double>;

// Time to first token and time between tokens: the bounds that dashboards of this field expect.
const Buckets kTtft = {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                       1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
const Buckets kItl = {.002, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                      .4,   .5,   .75, 1,    2.5, 5,    10, 20,  40, 80};
// Whole requests and their wait. The small bounds are for small models, which answer faster than
// the field's usual first bound of 0.3 s.
const Buckets kRequest = {.01, .03, .1, .3, .5, .8, 1,   1.5, 2,   2.5, 5,    10,
                          15,  20,  30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
const Buckets kTokens = {1,   2,    5,    10,   20,    50,    100,    200,   500,
                         1e3, 2000, 5000, 10e3, 20000, 50000, 100000, 200000};
const Buckets kRows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
// A call between services on one machine takes tens of microseconds.
const Buckets kCall = {10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3,
                       5e-3,  10e-3, 25e-3, 50e-3,  .1,     .25,    .5,   1,
                       2.5,   5,     10,    30,     60,     300,    1800};
const Buckets kPhase = {10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3,
                        25e-3, 50e-3, .1,    .25,    .5,     1,      2.5,  5,      10};

constexpr MetricKind C = MetricKind::kCounter;
constexpr MetricKind G = MetricKind::kGauge;
constexpr MetricKind H = MetricKind::kHistogram;

using Specs = std::vector<MetricSpec>;

Specs OfAProcess() {
  return {
      {"gatefold_build_info", G, "version, backend, isa", "1", "all",
       "Always 1; its labels say what runs"},
      {"gatefold_tls_certificate_expiry_seconds", G, "use", "seconds", "all",
       "When the TLS certificate in use expires, as Unix time; by what it is used for: listen, or "
       "workers (what a router shows to them)"},
  };
}

Specs OfRequests() {
  return {
      {"gatefold_request_ttft_seconds", H, "", "seconds", "router",
       "From a request's arrival to its first token", kTtft},
      {"gatefold_request_itl_seconds", H, "", "seconds", "router",
       "Between a token and the one before it, counted per token", kItl},
      {"gatefold_request_e2e_seconds", H, "", "seconds", "router",
       "From a request's arrival to its end", kRequest},
      {"gatefold_request_queue_seconds", H, "", "seconds", "router",
       "From a request's arrival to the first step it took part in", kRequest},
      {"gatefold_request_prompt_tokens", H, "", "tokens", "router", "Tokens of a request's prompt",
       kTokens},
      {"gatefold_request_generation_tokens", H, "", "tokens", "router",
       "Tokens generated for a request, over all candidates", kTokens},
      {"gatefold_request_truncated_tokens_total", C, "", "tokens", "router",
       "Tokens of prompts that were left out because their requests allowed it (KEEP_END)"},
      {"gatefold_requests_mixed_numerics_total", C, "", "requests", "router",
       "Requests in which shards of different numerics classes took part"},
      {"gatefold_requests_total", C, "outcome", "requests", "router",
       "Requests that ended, by gRPC code in lower case: ok, cancelled, resource_exhausted, ...; "
       "and rate_limited: by a limit of the caller's key"},
      {"gatefold_requests_running", G, "", "requests", "router",
       "Requests that take part in steps; one for N candidates counts N times"},
      {"gatefold_requests_waiting", G, "", "requests", "router",
       "Requests that wait for room, counted likewise"},
      {"gatefold_requests_waiting_for_expert", G, "", "requests", "router",
       "Of those that run: waiting for an expert that no live shard holds"},
  };
}

Specs OfSteps() {
  return {
      {"gatefold_step_seconds", H, "phase", "seconds", "router",
       "Where a step's time goes: attention, gate, experts, fold, sample, summed over its layers",
       kPhase},
      {"gatefold_step_rows", H, "", "rows", "router", "Rows that ride in one step", kRows},
      {"gatefold_steps_failed_total", C, "", "steps", "router",
       "Steps that failed; their rows are computed again or their requests end with an error"},
      {"gatefold_sequences_recomputed_total", C, "reason", "sequences", "router",
       "Running sequences whose keys and values are computed again: preempted (others needed their "
       "KV blocks), moved (their attention-service is gone or drains)"},
  };
}

Specs OfDispatchAndPlacement() {
  return {
      {"gatefold_router_expert_queue_tokens", G, "", "rows", "router",
       "(row, expert) pairs sent to shards and not answered yet"},
      {"gatefold_router_shard_rows_total", C, "shard", "rows", "router",
       "(row, expert) pairs a shard answered"},
      {"gatefold_router_shard_rows_sent_total", C, "shard", "rows", "router",
       "Rows sent to a shard, each once however many of its experts it visits"},
      {"gatefold_router_shard_calls_total", C, "shard", "calls", "router",
       "Messages sent to a shard"},
      {"gatefold_router_shard_sent_bytes_total", C, "shard", "bytes", "router",
       "Bytes of messages sent to a shard"},
      {"gatefold_router_shard_received_bytes_total", C, "shard", "bytes", "router",
       "Bytes of a shard's answers"},
      {"gatefold_router_hops_total", C, "peer", "calls", "router",
       "Calls to a peer over its streams that were answered"},
      {"gatefold_router_hop_seconds_total", C, "peer", "seconds", "router",
       "From handing a call to the transport to its answer, summed; over hops: the mean hop"},
      {"gatefold_router_hop_bytes_total", C, "peer, direction", "bytes", "router",
       "Bytes of calls and answers, before gRPC's framing; direction: sent, received"},
      {"gatefold_router_imbalance_ratio", G, "", "ratio", "router",
       "Rows/s of the busiest shard over the mean of those that hold experts, of the last minute; "
       "1 is even"},
      {"gatefold_router_retries_total", C, "reason", "calls", "router",
       "Calls to shards that were not answered and so sent again, by why"},
      {"gatefold_router_hedges_total", C, "won", "calls", "router",
       "Late calls sent to a replica as well, by whether its answer came first"},
      {"gatefold_router_verified_rows_total", C, "result", "rows", "router",
       "(row, expert) pairs drawn to be computed again: equal, different, no_replica, no_answer, "
       "busy"},
      {"gatefold_router_degraded_rows_total", C, "", "rows", "router",
       "Rows that went through a layer without some of their experts"},
      {"gatefold_router_coverage_ratio", G, "", "ratio", "router",
       "(layer, expert) pairs with a live shard, of all; below 1 some requests wait"},
      {"gatefold_router_placement_epoch", G, "", "1", "router",
       "Version of the routing table; counts up whenever a worker comes, goes or changes, other than in "
       "how full it is"},
      {"gatefold_router_placement_moves_total", C, "", "experts", "router",
       "(shard, expert) pairs that the planner told shards to load; only where it runs"},
  };
}

Specs OfExperts() {
  return {
      {"gatefold_expert_compute_seconds_total", C, "", "seconds", "expert",
       "Time spent computing; its rate over the lanes is how busy the shard is"},
      {"gatefold_expert_device_seconds_total", C, "", "seconds", "expert",
       "Of it, what a CUDA device computed, without copies to and from it; 0 on the CPU"},
      {"gatefold_expert_queue_seconds", H, "", "seconds", "expert",
       "From a call's arrival to the start of its computation", kCall},
      {"gatefold_expert_tokens_total", C, "layer", "rows", "expert",
       "(row, expert) pairs computed"},
      {"gatefold_expert_rows_total", C, "layer, expert", "rows", "expert",
       "The same by expert, for those the shard holds; only with --metrics-per-expert"},
      {"gatefold_expert_lanes", G, "", "lanes", "expert",
       "Calls computed at the same time at most"},
      {"gatefold_expert_inflight", G, "", "calls", "expert", "Calls taken and not answered yet"},
      {"gatefold_expert_loaded_bytes", G, "", "bytes", "expert", "Weights of the experts held"},
      {"gatefold_expert_load_seconds", G, "", "seconds", "expert",
       "How long the last load of experts took"},
      {"gatefold_expert_loads_total", C, "source", "experts", "expert",
       "Experts loaded, by where from: checkpoint, shard"},
      {"gatefold_expert_load_bytes_total", C, "source", "bytes", "expert",
       "Their bytes, as in the checkpoint"},
      {"gatefold_expert_load_failures_total", C, "reason", "attempts", "expert",
       "Attempts to get an expert from another shard that failed: unavailable, busy, timeout, "
       "refused, malformed, digest; and no_holder: no shard is known to have it"},
  };
}

Specs OfAttention() {
  return {
      {"gatefold_attention_compute_seconds_total", C, "", "seconds", "attention",
       "Time spent computing embedding, attention, LM head and sampling"},
      {"gatefold_attention_device_seconds_total", C, "", "seconds", "attention",
       "Of it, what a CUDA device computed, without copies to and from it; 0 on the CPU"},
      {"gatefold_attention_queue_seconds", H, "", "seconds", "attention",
       "From a call's arrival to the start of its computation", kCall},
      {"gatefold_attention_tokens_total", C, "", "rows", "attention",
       "Rows that came in calls; a token counts once per layer"},
      {"gatefold_kv_usage_ratio", G, "", "ratio", "attention",
       "KV blocks that sequences use, of all"},
      {"gatefold_kv_blocks", G, "state", "blocks", "attention",
       "KV blocks by state: used by sequences, cached (kept for prompts that begin alike, given up "
       "when needed), free"},
      {"gatefold_prefix_cache_tokens_total", C, "result", "tokens", "attention",
       "Tokens looked for in the prefix cache when their sequence began: hit (not computed again), "
       "miss"},
      {"gatefold_sequences", G, "", "sequences", "attention", "Sequences that hold KV blocks"},
  };
}

Specs OfCalls() {
  return {
      {"grpc_server_call_duration_seconds", H, "grpc_method, grpc_status", "seconds", "all",
       "Calls served, from their arrival to their end; a stream is one call", kCall},
      {"grpc_client_attempt_duration_seconds", H, "grpc_method, grpc_status", "seconds", "router",
       "Attempts at calls to other services; a stream is one attempt, "
       "CANCELLED where the router closed it first",
       kCall},
  };
}

Specs MakeTable() {
  Specs table;
  for (const Specs& part : {OfAProcess(), OfRequests(), OfSteps(), OfDispatchAndPlacement(),
                            OfExperts(), OfAttention(), OfCalls()}) {
    table.insert(table.end(), part.begin(), part.end());
  }
  return table;
}

}  // namespace

const std::vector<MetricSpec>& MetricTable() {
  static const auto* const table = new std::vector<MetricSpec>(MakeTable());
  return *table;
}

const MetricSpec& FindMetric(absl::string_view name) {
  const MetricSpec* found = nullptr;
  for (const MetricSpec& spec : MetricTable()) {
    if (spec.name == name) found = &spec;
  }
  GF_CHECK(found != nullptr);
  return *found;
}

}  // namespace gatefold

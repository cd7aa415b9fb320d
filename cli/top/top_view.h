#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "cli/output.h"
#include "gatefold/cluster/v1/cluster.pb.h"

namespace gatefold::cli {

// What a router said at one moment.
struct TopSample {
  absl::Time at;
  cluster::v1::GetServingStatsResponse stats;
  cluster::v1::GetClusterResponse cluster;
};

// What happened between two samples.
struct TopView {
  absl::Time at;
  std::string model;
  double tokens_per_second = 0;
  // In seconds; nothing where no token came.
  std::optional<double> ttft_p50, ttft_p99, itl_p50, itl_p99;
  uint32_t n_running = 0, n_waiting = 0;
  uint32_t n_waiting_for_expert = 0;  // of those that run
  uint64_t n_kv_blocks = 0, n_kv_blocks_used = 0;
  double coverage_ratio = 0;
  uint64_t topology_version = 0;

  struct WorkerRow {
    cluster::v1::Worker worker;
    double rows_per_second = 0;  // of an expert-service, to this router
    double share = 0;            // of all rows
  };
  std::vector<WorkerRow> workers;  // as the router lists them
  double imbalance = 1;  // max over mean of rows_per_second over shards that hold something
};

// `after` comes later. Counts that went down belong to a router that was started again.
TopView CompareSamples(const TopSample& before, const TopSample& after);

// The value that a share q of the observations between two histograms is at most, as Prometheus
// guesses it: evenly spread within a bucket. Nothing if there are none, or the bounds differ.
std::optional<double> QuantileBetween(const cluster::v1::LatencyHistogram& before,
                                      const cluster::v1::LatencyHistogram& after, double q);

void PrintTopTable(const TopView& view, std::ostream& out);
// One line, key=value, for terminals that scroll and for logs.
void PrintTopLine(const TopView& view, std::ostream& out);
Json TopJson(const TopView& view);

}  // namespace gatefold::cli

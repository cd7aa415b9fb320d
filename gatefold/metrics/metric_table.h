#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace gatefold {

enum class MetricKind { kCounter, kGauge, kHistogram };

// One metric as operators see it. docs/metrics.md is checked against these.
struct MetricSpec {
  absl::string_view name;
  MetricKind kind;
  absl::string_view labels;  // names joined with ", "; "" for none
  absl::string_view unit;
  absl::string_view services;  // who serves it: "router", "expert", "attention", "all"
  absl::string_view help;
  std::vector<double> buckets;  // upper bounds, ascending, without +Inf; histograms only
};

// Every metric of every service. Nothing is exported that is not in here.
const std::vector<MetricSpec>& MetricTable();

// The entry of that name, which must exist.
const MetricSpec& FindMetric(absl::string_view name);

}  // namespace gatefold

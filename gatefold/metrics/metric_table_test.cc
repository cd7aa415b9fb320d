#include "gatefold/metrics/metric_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace gatefold {
namespace {

using ::testing::ElementsAreArray;

// The lines of docs/metrics.md that describe a metric.
std::vector<std::string> DocumentedRows() {
  std::ifstream file("docs/metrics.md");
  EXPECT_TRUE(file.good()) << "docs/metrics.md is missing";
  std::vector<std::string> rows;
  for (std::string line; std::getline(file, line);) {
    if (absl::StartsWith(line, "| `")) rows.push_back(line);
  }
  return rows;
}

const char* KindName(MetricKind kind) {
  switch (kind) {
    case MetricKind::kCounter:
      return "counter";
    case MetricKind::kGauge:
      return "gauge";
    case MetricKind::kHistogram:
      return "histogram";
  }
  return "unknown";
}

std::string Row(const MetricSpec& spec) {
  return absl::StrCat("| `", spec.name, "` | ", KindName(spec.kind), " | ", spec.labels,
                      spec.labels.empty() ? "| " : " | ", spec.unit, " | ", spec.services, " | ",
                      spec.help, " |");
}

TEST(MetricTableTest, IsWhatTheDocumentationSays) {
  std::vector<std::string> rows;
  for (const MetricSpec& spec : MetricTable()) rows.push_back(Row(spec));
  EXPECT_THAT(DocumentedRows(), ElementsAreArray(rows));
}

TEST(MetricTableTest, NamesFollowTheConventions) {
  std::set<std::string> names;
  for (const MetricSpec& spec : MetricTable()) {
    const std::string name(spec.name);
    EXPECT_TRUE(names.insert(name).second) << name << " is there twice";
    EXPECT_TRUE(absl::StartsWith(name, "gatefold_") || absl::StartsWith(name, "grpc_")) << name;
    EXPECT_EQ(absl::EndsWith(name, "_total"), spec.kind == MetricKind::kCounter) << name;
    if (spec.unit == "seconds" || spec.unit == "bytes" || spec.unit == "ratio") {
      EXPECT_TRUE(absl::StrContains(name, absl::StrCat("_", spec.unit))) << name;
    }
    EXPECT_EQ(spec.buckets.empty(), spec.kind != MetricKind::kHistogram) << name;
    EXPECT_TRUE(std::is_sorted(spec.buckets.begin(), spec.buckets.end(), std::less_equal<>()))
        << name << ": buckets must ascend";
  }
}

TEST(MetricTableTest, KeepsTheBucketsThatDashboardsExpect) {
  EXPECT_THAT(FindMetric("gatefold_request_ttft_seconds").buckets,
              ElementsAreArray({.001, .005, .01, .02, .04, .06, .08, .1,  .25,  .5,   .75,
                                1.,   2.5,  5.,  7.5, 10., 20., 40., 80., 160., 640., 2560.}));
  EXPECT_THAT(FindMetric("gatefold_request_itl_seconds").buckets,
              ElementsAreArray({.002, .005, .01, .025, .05, .075, .1,  .15, .2,  .3,
                                .4,   .5,   .75, 1.,   2.5, 5.,   10., 20., 40., 80.}));
}

}  // namespace
}  // namespace gatefold

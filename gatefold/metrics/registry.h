#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Counter;
class Histogram;
}  // namespace prometheus

namespace gatefold {

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// The metrics of one process (or of one of several services in it). Names, kinds, labels and
// buckets come from the metric table. What Add... returns lives as long as the registry.
// Threads: safe.
class Registry {
 public:
  Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;
  ~Registry();  // as StopWatching

  // The same name and labels again give the same object.
  prometheus::Counter* AddCounter(absl::string_view name, const MetricLabels& labels = {});
  prometheus::Histogram* AddHistogram(absl::string_view name, const MetricLabels& labels = {});

  // A gauge or counter whose value is asked for at each scrape. `read` runs on a thread of the
  // metrics server, one scrape at a time, must be quick, and stays in use until StopWatching.
  void Watch(absl::string_view name, const MetricLabels& labels, std::function<double()> read);

  // The same for things that come and go: each series with its labels.
  void WatchSeries(absl::string_view name,
                   std::function<std::vector<std::pair<MetricLabels, double>>()> read);
  // The same: values by what the metric's only label says.
  void WatchEach(absl::string_view name,
                 std::function<std::vector<std::pair<std::string, double>>()> read);

  // No `read` runs or will run once this returns. Call it before what they read is destroyed.
  void StopWatching();

  // Everything as a scrape gets it.
  std::string Text() const { return Reader()(); }
  // Gives the text at each call, and may outlive the registry.
  std::function<std::string()> Reader() const;

 private:
  class Contents;

  const std::shared_ptr<Contents> contents_;
};

}  // namespace gatefold

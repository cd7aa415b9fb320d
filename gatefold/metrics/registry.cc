#include "gatefold/metrics/registry.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <sstream>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/base/check.h"
#include "gatefold/metrics/metric_table.h"

namespace gatefold {
namespace {

// The labels of a metric are a promise to dashboards: exactly those of the table, in its order.
prometheus::Labels CheckedLabels(const MetricSpec& spec, const MetricLabels& labels) {
  std::vector<std::string> names;
  for (const auto& [name, value] : labels) names.push_back(name);
  GF_CHECK(absl::StrJoin(names, ", ") == spec.labels);
  return prometheus::Labels(labels.begin(), labels.end());
}

}  // namespace

class Registry::Contents {
 public:
  using ReadSeries = std::function<std::vector<std::pair<MetricLabels, double>>()>;

  prometheus::Registry* stored() { return &stored_; }

  void Watch(const MetricSpec& spec, const prometheus::Labels& labels,
             std::function<double()> read) {
    absl::MutexLock lock(&mu_);
    watched_[&spec].push_back({labels, std::move(read)});
  }

  void WatchSeries(const MetricSpec& spec, ReadSeries read) {
    absl::MutexLock lock(&mu_);
    watched_series_[&spec] = std::move(read);
  }

  void StopWatching() {
    absl::MutexLock lock(&mu_);
    watched_.clear();
    watched_series_.clear();
  }

  std::vector<prometheus::MetricFamily> Collect() const {
    std::vector<prometheus::MetricFamily> families = stored_.Collect();
    // Held while reading, so that StopWatching waits for a scrape under way.
    absl::MutexLock lock(&mu_);
    for (const auto& [spec, readings] : watched_) {
      families.push_back(Read(*spec, readings));
    }
    for (const auto& [spec, read] : watched_series_) {
      std::vector<Reading> readings;
      for (const auto& [labels, value] : read()) {
        readings.push_back({CheckedLabels(*spec, labels), [value = value] { return value; }});
      }
      families.push_back(Read(*spec, readings));
    }
    return families;
  }

 private:
  struct Reading {
    prometheus::Labels labels;
    std::function<double()> read;
  };

  static prometheus::MetricFamily Read(const MetricSpec& spec,
                                       const std::vector<Reading>& readings) {
    const bool is_counter = spec.kind == MetricKind::kCounter;
    prometheus::MetricFamily family{
        std::string(spec.name),
        std::string(spec.help),
        is_counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge,
        {}};
    for (const Reading& reading : readings) {
      prometheus::ClientMetric metric;
      for (const auto& [name, value] : reading.labels) metric.label.push_back({name, value});
      (is_counter ? metric.counter.value : metric.gauge.value) = reading.read();
      family.metric.push_back(std::move(metric));
    }
    return family;
  }

  prometheus::Registry stored_;
  mutable absl::Mutex mu_;
  std::map<const MetricSpec*, std::vector<Reading>> watched_ ABSL_GUARDED_BY(mu_);
  std::map<const MetricSpec*, ReadSeries> watched_series_ ABSL_GUARDED_BY(mu_);
};

Registry::Registry() : contents_(std::make_shared<Contents>()) {}

Registry::~Registry() { StopWatching(); }

prometheus::Counter* Registry::AddCounter(absl::string_view name, const MetricLabels& labels) {
  const MetricSpec& spec = FindMetric(name);
  GF_CHECK(spec.kind == MetricKind::kCounter);
  return &prometheus::BuildCounter()
              .Name(std::string(spec.name))
              .Help(std::string(spec.help))
              .Register(*contents_->stored())
              .Add(CheckedLabels(spec, labels));
}

prometheus::Histogram* Registry::AddHistogram(absl::string_view name, const MetricLabels& labels) {
  const MetricSpec& spec = FindMetric(name);
  GF_CHECK(spec.kind == MetricKind::kHistogram);
  return &prometheus::BuildHistogram()
              .Name(std::string(spec.name))
              .Help(std::string(spec.help))
              .Register(*contents_->stored())
              .Add(CheckedLabels(spec, labels), spec.buckets);
}

void Registry::Watch(absl::string_view name, const MetricLabels& labels,
                     std::function<double()> read) {
  const MetricSpec& spec = FindMetric(name);
  GF_CHECK(spec.kind != MetricKind::kHistogram);
  contents_->Watch(spec, CheckedLabels(spec, labels), std::move(read));
}

void Registry::WatchSeries(absl::string_view name,
                           std::function<std::vector<std::pair<MetricLabels, double>>()> read) {
  const MetricSpec& spec = FindMetric(name);
  GF_CHECK(spec.kind != MetricKind::kHistogram);
  contents_->WatchSeries(spec, std::move(read));
}

void Registry::WatchEach(absl::string_view name,
                         std::function<std::vector<std::pair<std::string, double>>()> read) {
  const std::string label(FindMetric(name).labels);
  WatchSeries(name, [label, read = std::move(read)] {
    std::vector<std::pair<MetricLabels, double>> series;
    for (auto& [value, number] : read()) series.push_back({{{label, std::move(value)}}, number});
    return series;
  });
}

void Registry::StopWatching() { contents_->StopWatching(); }

std::function<std::string()> Registry::Reader() const {
  return [contents = contents_] {
    std::ostringstream text;
    prometheus::TextSerializer().Serialize(text, contents->Collect());
    return text.str();
  };
}

}  // namespace gatefold

#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "tests/integration/process.h"

namespace gatefold {

// What a service's /metrics says, by name and labels as they stand there:
// `gatefold_router_retries_total{reason="busy"}`.
class MetricsPage {
 public:
  // Of a process that has printed where its /metrics is, in a line that begins so.
  static absl::StatusOr<MetricsPage> Fetch(Process* process,
                                           const std::string& line_begin = "listening on ");

  // 0 where there is none.
  double Value(const std::string& name_and_labels) const;
  // Over all labels.
  double Sum(const std::string& name) const;

 private:
  std::map<std::string, double> values_;
};

}  // namespace gatefold

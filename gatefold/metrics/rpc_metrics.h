#pragma once

#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// Calls served and made, named as gRPC's proposal A66 names them. Threads: safe.
class RpcMetrics {
 public:
  explicit RpcMetrics(Registry* registry);  // which outlives this

  // method: "/package.Service/Method" of a method there is, or "other": every name that is given
  // here becomes a series, so names that a caller made up must not come this far.
  void ObserveServerCall(absl::string_view method, absl::StatusCode code, absl::Duration time);
  void ObserveClientAttempt(absl::string_view method, absl::StatusCode code, absl::Duration time);

 private:
  using Series =
      absl::flat_hash_map<std::pair<std::string, absl::StatusCode>, prometheus::Histogram*>;
  prometheus::Histogram* Find(Series* series, absl::string_view name, absl::string_view method,
                              absl::StatusCode code) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Registry* const registry_;
  absl::Mutex mu_;
  Series server_ ABSL_GUARDED_BY(mu_);
  Series client_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold

#include "gatefold/metrics/step_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

namespace gatefold {

StepMetrics::StepMetrics(Registry* registry)
    : registry_(registry),
      rows_(registry->AddHistogram("gatefold_step_rows")),
      failed_(registry->AddCounter("gatefold_steps_failed_total")) {
  for (const char* reason : {"preempted", "moved"}) {
    registry->AddCounter("gatefold_sequences_recomputed_total", {{"reason", reason}});
  }
}

void StepMetrics::Observe(absl::string_view phase, absl::Duration time) {
  prometheus::Histogram* histogram;
  {
    absl::MutexLock lock(&mu_);
    auto it = phases_.find(phase);
    if (it == phases_.end()) {
      const std::string name(phase);
      it =
          phases_.emplace(name, registry_->AddHistogram("gatefold_step_seconds", {{"phase", name}}))
              .first;
    }
    histogram = it->second;
  }
  histogram->Observe(absl::ToDoubleSeconds(time));
}

void StepMetrics::ObserveRows(int n_rows) { rows_->Observe(n_rows); }

void StepMetrics::ObserveFailed() { failed_->Increment(); }

void StepMetrics::ObserveRecomputed(const std::string& reason) {
  registry_->AddCounter("gatefold_sequences_recomputed_total", {{"reason", reason}})->Increment();
}

}  // namespace gatefold

#pragma once

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gatefold::cli {

// How far a long piece of work has come, on stderr: a bar on a terminal, a line every 5 s
// elsewhere.
//   ProgressBar progress("scoring", "bytes of text", n);
//   progress.Add(bytes);
// The bar is cleared at the end. Threads: safe.
class ProgressBar {
 public:
  // `unit` as in "1234 of 5678 tokens".
  ProgressBar(std::string label, std::string unit, uint64_t total);
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ~ProgressBar();

  void Add(uint64_t n);

 private:
  const std::string label_, unit_;
  const uint64_t total_;
  const bool terminal_;
  const absl::Time began_;
  absl::Mutex mu_;
  uint64_t done_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time shown_ ABSL_GUARDED_BY(mu_);
};

// "scoring  41 %  [####      ]  410 of 1000 tokens, 102/s, 0:06 left"
std::string ProgressLine(absl::string_view label, absl::string_view unit, uint64_t done,
                         uint64_t total, absl::Duration elapsed, bool bar);

}  // namespace gatefold::cli

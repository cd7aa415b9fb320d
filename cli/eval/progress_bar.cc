#include "cli/eval/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace gatefold::cli {
namespace {

constexpr absl::Duration kLineInterval = absl::Seconds(5);
constexpr absl::Duration kBarInterval = absl::Milliseconds(100);
constexpr size_t kBarWidth = 30;

}  // namespace

std::string ProgressLine(absl::string_view label, absl::string_view unit, uint64_t done,
                         uint64_t total, absl::Duration elapsed, bool bar) {
  const double share = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
  const double rate = static_cast<double>(done) / std::max(1e-3, absl::ToDoubleSeconds(elapsed));
  std::string line = absl::StrFormat("%s %3.0f %%", label, 100 * share);
  if (bar) {
    const auto filled = static_cast<size_t>(share * static_cast<double>(kBarWidth));
    absl::StrAppend(&line, "  [", std::string(filled, '#'), std::string(kBarWidth - filled, ' '),
                    "]");
  }
  absl::StrAppend(&line, "  ", done, " of ", total, " ", unit, absl::StrFormat(", %.0f/s", rate));
  if (done > 0) {
    const auto left = static_cast<int64_t>(static_cast<double>(total - done) / rate);
    absl::StrAppend(&line, absl::StrFormat(", %d:%02d left", left / 60, left % 60));
  }
  return line;
}

ProgressBar::ProgressBar(std::string label, std::string unit, uint64_t total)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(isatty(STDERR_FILENO) == 1),
      began_(absl::Now()),
      shown_(began_) {}

ProgressBar::~ProgressBar() {
  if (terminal_) std::fputs("\r\033[K", stderr);
}

void ProgressBar::Add(uint64_t n) {
  absl::MutexLock lock(&mu_);
  done_ = std::min(total_, done_ + n);
  const absl::Time now = absl::Now();
  if (now - shown_ < (terminal_ ? kBarInterval : kLineInterval)) return;
  shown_ = now;
  const std::string line = ProgressLine(label_, unit_, done_, total_, now - began_, terminal_);
  std::fputs((terminal_ ? absl::StrCat("\r", line, "\033[K") : absl::StrCat(line, "\n")).c_str(),
             stderr);
  std::fflush(stderr);
}

}  // namespace gatefold::cli

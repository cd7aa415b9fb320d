#include "gatefold/checkpoint/load_progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gatefold/base/log.h"

namespace gatefold {
namespace {

constexpr absl::Duration kLineInterval = absl::Seconds(5);
constexpr absl::Duration kBarInterval = absl::Milliseconds(100);
constexpr int kBarWidth = 30;

void WriteToLog(absl::string_view text) {
  if (!IsLogged(LogLevel::kInfo)) return;
  if (CurrentLogFormat() == LogFormat::kJson) {
    return LogEvent(LogLevel::kInfo, "load_progress", {{"message", absl::StripSuffix(text, "\n")}});
  }
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

double MiB(double bytes) { return bytes / (1 << 20); }

}  // namespace

bool LoadProgress::StderrIsTerminal() {
  return isatty(STDERR_FILENO) == 1 && CurrentLogFormat() != LogFormat::kJson;
}

LoadProgress::LoadProgress(Options options) : options_(std::move(options)) {
  if (!options_.write) options_.write = WriteToLog;
  if (!options_.now) options_.now = absl::Now;
  started_ = printed_ = options_.now();
}

void LoadProgress::Add(uint64_t bytes) {
  absl::MutexLock lock(&mu_);
  done_bytes_ += bytes;
  const absl::Time now = options_.now();
  if (finished_ || now - printed_ < (options_.terminal ? kBarInterval : kLineInterval)) return;
  printed_ = now;
  options_.write(options_.terminal ? absl::StrCat("\r", Line(now), "\033[K")
                                   : absl::StrCat(Line(now), "\n"));
}

void LoadProgress::Finish() {
  absl::MutexLock lock(&mu_);
  if (std::exchange(finished_, true)) return;
  const absl::Time now = options_.now();
  options_.write(absl::StrFormat("%sloaded %s: %.1f MiB in %.1f s (%.0f MiB/s)\n",
                                 options_.terminal ? "\r\033[K" : "", options_.label,
                                 MiB(static_cast<double>(done_bytes_)),
                                 absl::ToDoubleSeconds(now - started_), MiB(Rate(now))));
}

uint64_t LoadProgress::done_bytes() const {
  absl::MutexLock lock(&mu_);
  return done_bytes_;
}

double LoadProgress::Rate(absl::Time now) const {
  const double seconds = absl::ToDoubleSeconds(now - started_);
  return seconds > 0 ? static_cast<double>(done_bytes_) / seconds : 0;
}

absl::Duration LoadProgress::Left(absl::Time now) const {
  if (done_bytes_ >= options_.total_bytes) return absl::ZeroDuration();
  const double rate = Rate(now);
  if (rate <= 0) return absl::InfiniteDuration();
  return absl::Seconds(static_cast<double>(options_.total_bytes - done_bytes_) / rate);
}

std::string LoadProgress::Line(absl::Time now) const {
  const double share = options_.total_bytes == 0
                           ? 1
                           : std::min(1.0, static_cast<double>(done_bytes_) / options_.total_bytes);
  std::string bar;
  if (options_.terminal) {
    const int filled = static_cast<int>(share * kBarWidth);
    bar = absl::StrCat("[", std::string(filled, '#'), std::string(kBarWidth - filled, '.'), "] ");
  }
  const absl::Duration left = Left(now);
  return absl::StrFormat("loading %s %s%3.0f%% %.0f of %.0f MiB, %.0f MiB/s, %s left",
                         options_.label, bar, share * 100, MiB(static_cast<double>(done_bytes_)),
                         MiB(static_cast<double>(options_.total_bytes)), MiB(Rate(now)),
                         left == absl::InfiniteDuration()
                             ? "unknown time"
                             : absl::StrFormat("%.0f s", absl::ToDoubleSeconds(left)));
}

}  // namespace gatefold

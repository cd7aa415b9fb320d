#include "router-service/gateway/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

std::vector<int> Borders(const std::string& bytes) {
  std::vector<int> border(bytes.size() + 1, 0);
  int k = 0;
  for (size_t i = 1; i < bytes.size(); ++i) {
    while (k > 0 && bytes[i] != bytes[k]) k = border[k];
    if (bytes[i] == bytes[k]) ++k;
    border[i + 1] = k;
  }
  return border;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    GF_CHECK(!stop.empty());
    std::vector<int> border = Borders(stop);
    patterns_.push_back({std::move(stop), std::move(border)});
  }
}

bool StopMatcher::Pattern::Advance(char byte) {
  while (n_matched > 0 && bytes[n_matched] != byte) n_matched = border[n_matched];
  if (bytes[n_matched] == byte) ++n_matched;
  if (n_matched < static_cast<int>(bytes.size())) return false;
  n_matched = border[n_matched];
  return true;
}

StopMatcher::Result StopMatcher::Push(absl::string_view text, bool may_stop) {
  Result result;
  if (ended_) return result;
  if (patterns_.empty()) {
    result.text = std::string(text);
    return result;
  }
  for (const char byte : text) {
    held_.push_back(byte);
    size_t n_stop = 0;
    for (int i = 0; i < static_cast<int>(patterns_.size()); ++i) {
      if (!patterns_[i].Advance(byte) || !may_stop) continue;
      if (patterns_[i].bytes.size() > n_stop) {
        n_stop = patterns_[i].bytes.size();
        result.matched = i;
      }
    }
    if (result.matched.has_value()) {
      ended_ = true;
      result.text.append(held_, 0, held_.size() - n_stop);
      held_.clear();
      return result;
    }
  }
  int n_held = 0;
  for (const Pattern& pattern : patterns_) n_held = std::max(n_held, pattern.n_matched);
  const size_t n_free = held_.size() - n_held;
  result.text.append(held_, 0, n_free);
  held_.erase(0, n_free);
  return result;
}

std::string StopMatcher::Finish() {
  ended_ = true;
  return std::exchange(held_, {});
}

}  // namespace gatefold

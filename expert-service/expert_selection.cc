#include "expert-service/expert_selection.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

absl::Status BadSelection(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("experts \"", text, "\": ", why));
}

struct Range {
  int first;
  int last;
};

// "3", "3-5" or "*", within [0, limit).
absl::StatusOr<Range> ParseRange(absl::string_view text, int limit, absl::string_view what) {
  if (text == "*") return Range{0, limit - 1};
  const std::pair<absl::string_view, absl::string_view> ends =
      absl::StrSplit(text, absl::MaxSplits('-', 1));
  Range range;
  if (!absl::SimpleAtoi(ends.first, &range.first)) {
    return BadSelection(text, absl::StrCat(what, " is not a number, a range or *"));
  }
  range.last = range.first;
  if (absl::StrContains(text, "-") && !absl::SimpleAtoi(ends.second, &range.last)) {
    return BadSelection(text, absl::StrCat(what, " is not a number, a range or *"));
  }
  if (range.first < 0 || range.last >= limit || range.first > range.last) {
    return BadSelection(text, absl::StrCat(what, " must be within 0 and ", limit - 1));
  }
  return range;
}

absl::StatusOr<std::vector<ExpertId>> ParsePart(absl::string_view text, int n_layers,
                                                int experts_per_layer) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits('/', 1));
  int index = 0, n_parts = 0;
  if (!absl::SimpleAtoi(parts.first, &index) || !absl::SimpleAtoi(parts.second, &n_parts)) {
    return BadSelection(text, "wanted I/N with two numbers");
  }
  if (n_parts < 1 || index < 0 || index >= n_parts) {
    return BadSelection(
        text, absl::StrCat("part ", index, " of ", n_parts, " is not there; parts count from 0"));
  }
  std::vector<ExpertId> selected;
  for (int layer = 0; layer < n_layers; ++layer) {
    for (int64_t expert = index; expert < experts_per_layer; expert += n_parts) {
      selected.push_back({layer, static_cast<int>(expert)});
    }
  }
  return selected;
}

}  // namespace

absl::StatusOr<std::vector<ExpertId>> ParseExpertSelection(absl::string_view text, int n_layers,
                                                           int experts_per_layer) {
  if (text == "none") return std::vector<ExpertId>();
  if (text == "all") return ParsePart("0/1", n_layers, experts_per_layer);
  if (absl::StrContains(text, "/")) return ParsePart(text, n_layers, experts_per_layer);
  std::vector<ExpertId> selected;
  for (absl::string_view item : absl::StrSplit(text, ',')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(item, absl::MaxSplits(':', 1));
    GF_ASSIGN_OR_RETURN(const Range layers, ParseRange(parts.first, n_layers, "layer"));
    GF_ASSIGN_OR_RETURN(const Range experts, ParseRange(parts.second, experts_per_layer, "expert"));
    for (int layer = layers.first; layer <= layers.last; ++layer) {
      for (int expert = experts.first; expert <= experts.last; ++expert) {
        selected.push_back({layer, expert});
      }
    }
  }
  std::sort(selected.begin(), selected.end());
  selected.erase(std::unique(selected.begin(), selected.end()), selected.end());
  return selected;
}

}  // namespace gatefold

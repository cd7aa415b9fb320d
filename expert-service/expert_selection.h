#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// Names one expert (of a dense layer: one slice).
struct ExpertId {
  int layer = 0;
  int expert = 0;
  friend bool operator==(const ExpertId&, const ExpertId&) = default;
  friend auto operator<=>(const ExpertId&, const ExpertId&) = default;
};

// Which experts a shard is started with:
//   all            every expert
//   none           nothing yet; a planner assigns them
//   I/N            the I-th (from 0) of N equal parts: expert e of every layer where e % N == I
//   L:A-B[,...]    experts A to B of layer L; L and the range may be * for all
// Ascending and distinct. Errors: InvalidArgument that names the part and the bounds.
absl::StatusOr<std::vector<ExpertId>> ParseExpertSelection(absl::string_view text, int n_layers,
                                                           int experts_per_layer);

}  // namespace gatefold

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gatefold::cli {

// What a number with a unit measures, and so which units it may have; the result is in the base
// unit. Prefixes are decimal (G = 10^9), but GiB and the like are binary.
enum class QuantityKind {
  kBytes,                // "80GiB", "64GB"
  kBytesPerSecond,       // "35GB/s"; "25Gbit/s" is an eighth of that many bytes
  kOperationsPerSecond,  // "200GFLOP/s"
  kSeconds,              // "81.3us", "2ms"
};

// InvalidArgument names what the text may look like. Positive and finite.
absl::Status ParseQuantity(absl::string_view text, QuantityKind kind, double* value);

}  // namespace gatefold::cli

#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"

namespace gatefold {

// What a number in a configuration may be, and why not more. Keys are those of config.json and
// generation_config.json.
struct IntBound {
  const char* key;
  int64_t low;
  int64_t high;
  const char* reason;
};
struct RealBound {
  const char* key;
  double low;
  double high;
  const char* reason;
};

// The key must be in the table.
const IntBound& IntBoundOf(absl::string_view key);
const RealBound& RealBoundOf(absl::string_view key);

}  // namespace gatefold

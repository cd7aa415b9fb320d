#pragma once

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold::cli {

// How a model's matrices are stored, and what that takes.
struct WeightFormat {
  const char* name;
  double bytes_per_weight;  // scales included
  bool quantised;           // the embedding and the LM head stay bfloat16
  bool experts_only;        // attention stays bfloat16, too
};

// float32, bfloat16, float16; fp8 (a float32 scale per block of 128 x 128); int8 and int4 (a
// two-byte scale per 32 weights); mxfp4 (a byte per 32). InvalidArgument for another name.
absl::StatusOr<WeightFormat> FindWeightFormat(absl::string_view name);

}  // namespace gatefold::cli

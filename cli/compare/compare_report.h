#pragma once

#include <ostream>
#include <vector>

#include "cli/compare/comparison.h"
#include "cli/output.h"

namespace gatefold::cli {

// {"models": [{"model", "family", "parameters", "active_parameters", "weight_bytes",
//  "bytes_per_token", "peak_memory_bytes", "load_seconds", "prefill_tokens_per_second",
//  "decode_tokens_per_second": {"1": ..}, "eval"}],
//  "against_first": [{"model", "sequences", "times_as_fast", "ideal", "share_of_ideal"}]}
// Speeds are medians over rounds. times_as_fast is the first model's speed over this one's, ideal
// the ratio of the bytes that one token reads.
Json ComparisonJson(const std::vector<ModelMeasurement>& models);

void PrintComparison(const std::vector<ModelMeasurement>& models, std::ostream& out);

}  // namespace gatefold::cli

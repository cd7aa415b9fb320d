#pragma once

#include <ostream>

#include "cli/eval/evaluation.h"
#include "cli/output.h"

namespace gatefold::cli {

// {"model", "window", "texts": {"tags": {TAG: {...}}, "all": {...}, "mean_bits_per_byte"},
//  "tasks": {TAG: {"choice": {"n", "accuracy", "accuracy_normalized"},
//                  "exact": {"n", "accuracy"}}},
//  "routing": {"layers": [..], "smallest_share", "tags": {TAG: [[share per expert] per layer]}}};
// parts that were not asked for are left out.
Json EvalJson(const Evaluation& evaluation);

void PrintEvaluation(const Evaluation& evaluation, std::ostream& out);

}  // namespace gatefold::cli

#pragma once

#include <string>

#include "cli/eval/evaluation.h"

namespace gatefold::cli {

// An SVG picture: a panel per layer with gates, a row per tag, a column per expert; the darker a
// field, the larger the share of that tag's tokens that the expert was chosen for. Empty if nothing
// was routed.
std::string ExpertHeatMap(const Evaluation& evaluation);

}  // namespace gatefold::cli

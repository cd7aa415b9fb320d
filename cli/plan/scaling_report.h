#pragma once

#include <ostream>

#include "cli/output.h"
#include "cli/plan/scaling.h"

namespace gatefold::cli {

void PrintScaling(const Architecture& model, const WeightFormat& format,
                  const ScalingOptions& options, const Scaling& scaling, std::ostream& out);

// Bytes, seconds and counts as plain numbers.
Json ScalingJson(const Architecture& model, const WeightFormat& format,
                 const ScalingOptions& options, const Scaling& scaling);

}  // namespace gatefold::cli

#pragma once

#include "absl/strings/string_view.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// What runs here, as labels of a metric that is always 1.
// version: of the program; backend: "cpu"; isa: "avx512", "avx2", "scalar".
void AddBuildInfo(Registry* registry, absl::string_view version, absl::string_view backend,
                  absl::string_view isa);

}  // namespace gatefold

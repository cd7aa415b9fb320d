#include "gatefold/metrics/build_info.h"

namespace gatefold {

void AddBuildInfo(Registry* registry, absl::string_view version, absl::string_view backend,
                  absl::string_view isa) {
  registry->Watch("gatefold_build_info",
                  {{"version", std::string(version)},
                   {"backend", std::string(backend)},
                   {"isa", std::string(isa)}},
                  [] { return 1; });
}

}  // namespace gatefold

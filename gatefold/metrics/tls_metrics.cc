#include "gatefold/metrics/tls_metrics.h"

#include <string>
#include <utility>

namespace gatefold {

void WatchCertificate(Registry* registry, absl::string_view use,
                      std::function<absl::Time()> not_after) {
  if (not_after() == absl::InfiniteFuture()) return;
  registry->Watch("gatefold_tls_certificate_expiry_seconds", {{"use", std::string(use)}},
                  [not_after = std::move(not_after)] {
                    return static_cast<double>(absl::ToUnixSeconds(not_after()));
                  });
}

}  // namespace gatefold

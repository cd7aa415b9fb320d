#pragma once

#include <functional>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// Shows when the certificate in use expires. No certificate (InfiniteFuture now): no series.
// use: "listen" or "workers".
void WatchCertificate(Registry* registry, absl::string_view use,
                      std::function<absl::Time()> not_after);

}  // namespace gatefold

#pragma once

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// Where /metrics listens for a service that listens at `address`: on this host alone where the
// service does (loopback, unix socket, nowhere), else on all interfaces, as scrapers need it.
inline std::string MetricsHost(absl::string_view address) {
  const bool local = address.empty() || absl::StartsWith(address, "unix") ||
                     absl::StartsWith(address, "127.") || absl::StartsWith(address, "localhost") ||
                     absl::StartsWith(address, "[::1]");
  return local ? "127.0.0.1" : "0.0.0.0";
}

}  // namespace gatefold

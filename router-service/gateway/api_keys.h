#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "router-service/gateway/gateway_options.h"

namespace gatefold {

// SHA-256. A fast hash is enough, and no salt is needed, because keys are 256 random bits: nobody
// can try them all, or make a table of them. It would not do for passwords that people choose.
using ApiKeyHash = std::array<uint8_t, 32>;
ApiKeyHash HashApiKey(absl::string_view key);

// "gf_" and 256 bits of the kernel's generator.
std::string NewApiKey();

// One line of the file of keys:
//   NAME sha256:HEX [admin] [revoked] [requests_per_minute=N] [tokens_per_minute=N]
//       [max_priority=N]
struct ApiKey {
  std::string name;  // for logs and errors
  ApiKeyHash hash = {};
  bool admin = false;    // may call AdminService
  bool revoked = false;  // refused, and told so; a line that is gone is refused as unknown
  int64_t requests_per_minute = 0;      // 0: no limit
  int64_t tokens_per_minute = 0;        // prompt and output together; 0: no limit
  std::optional<int32_t> max_priority;  // of its requests; none: as high as any may be

  friend bool operator==(const ApiKey&, const ApiKey&) = default;
};

inline constexpr size_t kMaxApiKeys = 4096;
inline constexpr int64_t kMaxPerMinute = int64_t{1} << 40;
// At least 0, which is what most requests have.
inline constexpr int32_t kMaxKeyPriority = RequestLimits{}.max_priority;
// word that is not known. A text without a key is refused too: it would lock everybody out.
absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(absl::string_view text);

// kInvalidArgument unless 1 to 64 letters, digits, dots, dashes and underscores.
absl::Status CheckApiKeyName(absl::string_view name);

// The line of a key, without its end.
std::string FormatApiKey(const ApiKey& key);

}  // namespace gatefold

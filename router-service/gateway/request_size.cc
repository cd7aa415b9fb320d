#include "router-service/gateway/request_size.h"

#include <algorithm>

namespace gatefold {

int64_t MaxRequestBytes(const RequestLimits& limits, const ModelInfo& model) {
  // A tag and four bytes: ids are below 2^22, and need not be packed.
  constexpr int64_t kIdBytes = 5;
  // Tags and lengths of a message, its role and its content, and the role.
  constexpr int64_t kMessageBytes = 16 + RequestLimits::kMaxRoleBytes;
  constexpr int64_t kStopFraming = 4, kBiasBytes = 12;
  constexpr int64_t kForTheRest = 4096;  // numbers, names, tags and lengths around all that
  const int64_t length = model.max_sequence_tokens;
  const int64_t text = limits.max_prompt_bytes + limits.max_messages * kMessageBytes;
  const int64_t ids = kIdBytes * std::max<int64_t>(length, limits.max_token_ids);
  const int64_t resumed = kIdBytes * length;
  const int64_t config =
      limits.max_stop_sequences * (limits.max_stop_sequence_bytes + kStopFraming) +
      limits.max_stop_token_ids * kIdBytes + limits.max_logit_bias * kBiasBytes;
  return text + ids + resumed + config + limits.max_request_id_bytes +
         static_cast<int64_t>(model.name.size()) + kForTheRest;
}

int64_t MaxRequestParts(const RequestLimits& limits) {
  constexpr int64_t kPartsOfMessage = 3;  // itself, role and content
  constexpr int64_t kForTheRest = 64;
  return limits.max_messages * kPartsOfMessage + limits.max_stop_sequences + limits.max_logit_bias +
         kForTheRest;
}

}  // namespace gatefold

#pragma once

// The errors that callers act upon, each with a reason that programs can read and the facts behind
// it. Domain code returns them; gatefold/rpc turns them into google.rpc details on the wire and
// back. Details travel inside absl::Status as one payload and survive Annotate().

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gatefold {

// Reasons, as they stand in google.rpc.ErrorInfo.
inline constexpr char kBadRequest[] = "BAD_REQUEST";
inline constexpr char kContextLengthExceeded[] = "CONTEXT_LENGTH_EXCEEDED";
inline constexpr char kModelNotFound[] = "MODEL_NOT_FOUND";
inline constexpr char kDuplicateRequest[] = "DUPLICATE_REQUEST";
inline constexpr char kQueueFull[] = "QUEUE_FULL";
inline constexpr char kKvCacheFull[] = "KV_CACHE_FULL";
inline constexpr char kRateLimited[] = "RATE_LIMITED";
inline constexpr char kApiKeyMissing[] = "API_KEY_MISSING";
inline constexpr char kApiKeyInvalid[] = "API_KEY_INVALID";
inline constexpr char kAdminKeyRequired[] = "ADMIN_KEY_REQUIRED";
inline constexpr char kModelLoading[] = "MODEL_LOADING";
inline constexpr char kDraining[] = "DRAINING";
inline constexpr char kExpertUnavailable[] = "EXPERT_UNAVAILABLE";
inline constexpr char kCheckpointMismatch[] = "CHECKPOINT_MISMATCH";
inline constexpr char kFeatureUnsupported[] = "FEATURE_UNSUPPORTED";

struct FieldViolation {
  std::string field;  // path in the request, as "config.top_p"
  std::string description;
};

struct ErrorDetails {
  std::string reason;  // empty: none
  std::vector<std::pair<std::string, std::string>> metadata;
  absl::Duration retry_delay = absl::ZeroDuration();  // zero: none
  std::vector<FieldViolation> violations;
};

// Replaces the details of a status; does nothing to OK.
void SetErrorDetails(const ErrorDetails& details, absl::Status* status);
// Empty details where there are none, or none that can be read.
ErrorDetails GetErrorDetails(const absl::Status& status);

// "" where the status has no reason.
std::string ReasonOf(const absl::Status& status);
// How long to wait before a retry; zero where the status does not invite one.
absl::Duration RetryDelayOf(const absl::Status& status);

// kInvalidArgument.
absl::Status BadField(absl::string_view field, absl::string_view description);
absl::Status ContextLengthExceeded(int64_t prompt_tokens, int64_t limit);
// kNotFound.
absl::Status ModelNotFound(absl::string_view name);
// kAlreadyExists.
absl::Status DuplicateRequest(absl::string_view request_id);
// kResourceExhausted.
absl::Status QueueFull(absl::Duration retry_delay);
// The queue is full because nobody can start for want of KV blocks.
absl::Status KvCacheFull(absl::Duration retry_delay);
// `what`: "requests" or "tokens".
absl::Status RateLimited(absl::string_view what, int64_t limit_per_minute,
                         absl::Duration retry_delay);
// kUnauthenticated.
absl::Status ApiKeyMissing();
// kPermissionDenied. `why` may be told to whoever holds the key.
absl::Status ApiKeyInvalid(absl::string_view why);
absl::Status AdminKeyRequired(absl::string_view method);
// kUnavailable.
absl::Status ModelLoading(absl::Duration retry_delay);
absl::Status Draining(absl::Duration retry_delay);
absl::Status DrainLimitPassed();  // the same reason, for what was under way
absl::Status ExpertUnavailable(int layer, int expert, absl::Duration retry_delay);
// kFailedPrecondition. `what` names the thing that differs, as "model fingerprint".
absl::Status CheckpointMismatch(absl::string_view what, absl::string_view ours,
                                absl::string_view theirs);
// kUnimplemented.
absl::Status FeatureUnsupported(absl::string_view feature);

}  // namespace gatefold

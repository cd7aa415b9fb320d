#include "gatefold/base/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace gatefold {
namespace {

constexpr char kDetailsUrl[] = "gatefold.dev/error-details";

// The payload is a list of records: a letter that says what follows, then strings as
// `length:bytes`. R reason, M key value, D delay in nanoseconds, V field description.
void AppendString(absl::string_view text, std::string* out) {
  absl::StrAppend(out, text.size(), ":", text);
}

bool TakeString(absl::string_view* in, std::string* out) {
  const size_t colon = in->find(':');
  uint64_t length = 0;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(in->substr(0, colon), &length)) {
    return false;
  }
  in->remove_prefix(colon + 1);
  if (length > in->size()) return false;
  *out = std::string(in->substr(0, length));
  in->remove_prefix(length);
  return true;
}

bool TakeRecord(absl::string_view* in, ErrorDetails* details) {
  const char kind = in->front();
  in->remove_prefix(1);
  std::string first, second;
  if (!TakeString(in, &first)) return false;
  switch (kind) {
    case 'R':
      details->reason = std::move(first);
      return true;
    case 'D': {
      int64_t nanos = 0;
      if (!absl::SimpleAtoi(first, &nanos)) return false;
      details->retry_delay = absl::Nanoseconds(nanos);
      return true;
    }
    case 'M':
      if (!TakeString(in, &second)) return false;
      details->metadata.emplace_back(std::move(first), std::move(second));
      return true;
    case 'V':
      if (!TakeString(in, &second)) return false;
      details->violations.push_back({std::move(first), std::move(second)});
      return true;
    default:
      return false;
  }
}

absl::Status Error(absl::StatusCode code, absl::string_view message, const ErrorDetails& details) {
  absl::Status status(code, message);
  SetErrorDetails(details, &status);
  return status;
}

}  // namespace

void SetErrorDetails(const ErrorDetails& details, absl::Status* status) {
  if (status->ok()) return;
  std::string encoded;
  if (!details.reason.empty()) {
    encoded.push_back('R');
    AppendString(details.reason, &encoded);
  }
  for (const auto& [key, value] : details.metadata) {
    encoded.push_back('M');
    AppendString(key, &encoded);
    AppendString(value, &encoded);
  }
  if (details.retry_delay > absl::ZeroDuration()) {
    encoded.push_back('D');
    AppendString(absl::StrCat(absl::ToInt64Nanoseconds(details.retry_delay)), &encoded);
  }
  for (const FieldViolation& violation : details.violations) {
    encoded.push_back('V');
    AppendString(violation.field, &encoded);
    AppendString(violation.description, &encoded);
  }
  if (encoded.empty()) {
    status->ErasePayload(kDetailsUrl);
  } else {
    status->SetPayload(kDetailsUrl, absl::Cord(encoded));
  }
}

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details;
  const absl::optional<absl::Cord> payload = status.GetPayload(kDetailsUrl);
  if (!payload.has_value()) return details;
  const std::string encoded(*payload);
  absl::string_view in = encoded;
  while (!in.empty()) {
    if (!TakeRecord(&in, &details)) return ErrorDetails();
  }
  return details;
}

std::string ReasonOf(const absl::Status& status) { return GetErrorDetails(status).reason; }

absl::Duration RetryDelayOf(const absl::Status& status) {
  return GetErrorDetails(status).retry_delay;
}

absl::Status BadField(absl::string_view field, absl::string_view description) {
  ErrorDetails details;
  details.reason = kBadRequest;
  details.violations.push_back({std::string(field), std::string(description)});
  return Error(absl::StatusCode::kInvalidArgument, absl::StrCat(field, ": ", description), details);
}

absl::Status ContextLengthExceeded(int64_t prompt_tokens, int64_t limit) {
  ErrorDetails details;
  details.reason = kContextLengthExceeded;
  details.metadata = {{"prompt_tokens", absl::StrCat(prompt_tokens)},
                      {"limit", absl::StrCat(limit)}};
  return Error(absl::StatusCode::kInvalidArgument,
               absl::StrCat("the prompt has ", prompt_tokens, " tokens, the limit is ", limit),
               details);
}

absl::Status ModelNotFound(absl::string_view name) {
  ErrorDetails details;
  details.reason = kModelNotFound;
  details.metadata = {{"model", std::string(name)}};
  return Error(absl::StatusCode::kNotFound, absl::StrCat("no model named \"", name, "\" is served"),
               details);
}

absl::Status DuplicateRequest(absl::string_view request_id) {
  ErrorDetails details;
  details.reason = kDuplicateRequest;
  details.metadata = {{"request_id", std::string(request_id)}};
  return Error(absl::StatusCode::kAlreadyExists,
               absl::StrCat("request_id \"", request_id, "\" is already running"), details);
}

absl::Status QueueFull(absl::Duration retry_delay) {
  ErrorDetails details;
  details.reason = kQueueFull;
  details.retry_delay = retry_delay;
  return Error(absl::StatusCode::kResourceExhausted,
               absl::StrCat("the queue is full; try again in ", absl::FormatDuration(retry_delay)),
               details);
}

absl::Status KvCacheFull(absl::Duration retry_delay) {
  ErrorDetails details;
  details.reason = kKvCacheFull;
  details.retry_delay = retry_delay;
  return Error(absl::StatusCode::kResourceExhausted,
               absl::StrCat("the queue is full, and those in it wait for room in the KV cache; try "
                            "again in ",
                            absl::FormatDuration(retry_delay)),
               details);
}

absl::Status RateLimited(absl::string_view what, int64_t limit_per_minute,
                         absl::Duration retry_delay) {
  ErrorDetails details;
  details.reason = kRateLimited;
  details.metadata = {{"what", std::string(what)},
                      {"limit_per_minute", absl::StrCat(limit_per_minute)}};
  details.retry_delay = retry_delay;
  return Error(
      absl::StatusCode::kResourceExhausted,
      absl::StrCat("the API key's limit of ", limit_per_minute, " ", what,
                   " per minute is used up; try again in ", absl::FormatDuration(retry_delay)),
      details);
}

absl::Status ApiKeyMissing() {
  ErrorDetails details;
  details.reason = kApiKeyMissing;
  return Error(absl::StatusCode::kUnauthenticated,
               "an API key is needed, as metadata `authorization: Bearer KEY`", details);
}

absl::Status ApiKeyInvalid(absl::string_view why) {
  ErrorDetails details;
  details.reason = kApiKeyInvalid;
  return Error(absl::StatusCode::kPermissionDenied, why, details);
}

absl::Status AdminKeyRequired(absl::string_view method) {
  ErrorDetails details;
  details.reason = kAdminKeyRequired;
  return Error(absl::StatusCode::kPermissionDenied,
               absl::StrCat(method, " is for keys that are marked admin"), details);
}

absl::Status ModelLoading(absl::Duration retry_delay) {
  ErrorDetails details;
  details.reason = kModelLoading;
  details.retry_delay = retry_delay;
  return Error(absl::StatusCode::kUnavailable, "the model is still loading", details);
}

absl::Status Draining(absl::Duration retry_delay) {
  ErrorDetails details;
  details.reason = kDraining;
  details.retry_delay = retry_delay;
  return Error(absl::StatusCode::kUnavailable, "draining: no new work is taken", details);
}

absl::Status DrainLimitPassed() {
  ErrorDetails details;
  details.reason = kDraining;
  return Error(absl::StatusCode::kUnavailable,
               "draining, and what is under way may take no longer: resume at another router",
               details);
}

absl::Status ExpertUnavailable(int layer, int expert, absl::Duration retry_delay) {
  ErrorDetails details;
  details.reason = kExpertUnavailable;
  details.metadata = {{"layer", absl::StrCat(layer)}, {"expert", absl::StrCat(expert)}};
  details.retry_delay = retry_delay;
  return Error(absl::StatusCode::kUnavailable,
               absl::StrCat("no live shard computes expert ", expert, " of layer ", layer),
               details);
}

absl::Status CheckpointMismatch(absl::string_view what, absl::string_view ours,
                                absl::string_view theirs) {
  ErrorDetails details;
  details.reason = kCheckpointMismatch;
  details.metadata = {
      {"what", std::string(what)}, {"ours", std::string(ours)}, {"theirs", std::string(theirs)}};
  return Error(absl::StatusCode::kFailedPrecondition,
               absl::StrCat(what, " differs: ours is ", ours, ", theirs is ", theirs), details);
}

absl::Status FeatureUnsupported(absl::string_view feature) {
  ErrorDetails details;
  details.reason = kFeatureUnsupported;
  details.metadata = {{"feature", std::string(feature)}};
  return Error(absl::StatusCode::kUnimplemented, absl::StrCat(feature, " is not supported"),
               details);
}

}  // namespace gatefold

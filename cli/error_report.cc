#include "cli/error_report.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

constexpr char kUsage[] = "gatefold.cli/usage";
constexpr char kNextStep[] = "gatefold.cli/next_step";

std::string TryAgain(const absl::Status& status) {
  const absl::Duration delay = RetryDelayOf(status);
  if (delay <= absl::ZeroDuration()) return "Try again in a moment.";
  return absl::StrFormat("Try again in %.1f s.", absl::ToDoubleSeconds(delay));
}

// By the reason that the gateway gives.
std::string NextStepFor(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  if (reason == kQueueFull || reason == kKvCacheFull || reason == kRateLimited ||
      reason == kModelLoading || reason == kDraining) {
    return TryAgain(status);
  }
  if (reason == kContextLengthExceeded) {
    return "Shorten the prompt or lower --max-tokens; `gatefold get models` tells the limit.";
  }
  if (reason == kModelNotFound) return "`gatefold get models` lists the names there are.";
  if (reason == kExpertUnavailable) return "`gatefold get workers` shows which shards are up.";
  if (reason == kCheckpointMismatch) return "Start all services with the same model folder.";
  return "";
}

}  // namespace

absl::Status UsageError(absl::string_view message) {
  absl::Status status = absl::InvalidArgumentError(message);
  status.SetPayload(kUsage, absl::Cord());
  return status;
}

bool IsUsageError(const absl::Status& status) { return status.GetPayload(kUsage).has_value(); }

absl::Status WithNextStep(absl::Status status, absl::string_view next_step) {
  if (!status.ok() && !status.GetPayload(kNextStep).has_value() && NextStepFor(status).empty()) {
    status.SetPayload(kNextStep, absl::Cord(next_step));
  }
  return status;
}

absl::Status ModelFolderError(const std::string& dir, const absl::Status& status) {
  if (absl::IsUnavailable(status)) return status;  // an address in use: not the folder's fault
  // Most of what is said of a folder starts with its name.
  const bool is_named = absl::StartsWith(status.message(), absl::StrCat(dir, ": "));
  const absl::Status named = Annotate(status, is_named ? "--model" : absl::StrCat("--model ", dir));
  if (!absl::IsNotFound(status)) return named;
  return WithNextStep(named,
                      "A model is a folder with config.json, *.safetensors and a tokenizer, as "
                      "Hugging Face has them.");
}

std::string DescribeError(absl::string_view verb, const absl::Status& status) {
  std::string text = absl::StrCat("gatefold", verb.empty() ? "" : " ", verb, ": ");
  if (IsUsageError(status)) {
    return absl::StrCat(text, status.message(), "\nSee `gatefold", verb.empty() ? "" : " ", verb,
                        " --help`.\n");
  }
  absl::StrAppend(&text,
                  status.message().empty() ? absl::StatusCodeToString(status.code())
                                           : std::string(status.message()),
                  "\n");
  std::string next_step = NextStepFor(status);
  if (const auto given = status.GetPayload(kNextStep); given.has_value()) {
    next_step = std::string(*given);
  }
  if (next_step.empty() && absl::IsDeadlineExceeded(status)) {
    next_step = "Give it more time with --timeout.";
  }
  if (!next_step.empty()) absl::StrAppend(&text, next_step, "\n");
  return text;
}

}  // namespace gatefold::cli

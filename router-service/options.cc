#include "router-service/options.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/call_context.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/wait_policy.h"

namespace gatefold {

std::string RouterOptions::ModelName() const {
  if (!model_name.empty()) return model_name;
  std::filesystem::path path(worker.model_dir);
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

// An answer has rows * experts per row * d_model floats.
int RouterOptions::MaxStepTokens(const ModelConfig& config) const {
  const int64_t row_bytes =
      static_cast<int64_t>(config.experts_per_row()) * config.d_model * sizeof(float);
  const int64_t fits = static_cast<int64_t>(kMaxFramePayloadBytes) / row_bytes;
  return static_cast<int>(std::clamp<int64_t>(fits, 1, scheduler.max_step_tokens));
}

absl::StatusOr<double> ParseShare(absl::string_view text) {
  absl::string_view number = text;
  const double unit = absl::ConsumeSuffix(&number, "%") ? 0.01 : 1;
  double value = 0;
  if (!absl::SimpleAtod(number, &value) || !(value * unit >= 0 && value * unit <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text, "\" must be a share within 0% and 100%, as 5%"));
  }
  return value * unit;
}

ServerOptions RouterOptions::GuardedServer() const {
  ServerOptions server;
  server.security = security;
  if (api_keys == nullptr) return server;
  server.authorize = [keys = api_keys](CallContext* call) {
    absl::StatusOr<std::shared_ptr<Caller>> caller =
        Authorize(*keys, call->method(), call->Metadata("authorization"));
    if (caller.ok()) call->set_principal(*std::move(caller));
    return caller.status();
  };
  return server;
}

absl::Status RouterOptions::Validate() const {
  GF_RETURN_IF_ERROR(gateway.Validate());
  GF_RETURN_IF_ERROR(scheduler.Validate());
  if (n_lanes < 1 || n_lanes > 64) {
    return absl::InvalidArgumentError(
        absl::StrCat("--lanes is ", n_lanes, ", must be within 1 and 64"));
  }
  if (wire_dtype != "float32" && wire_dtype != "bfloat16") {
    return absl::InvalidArgumentError(
        absl::StrCat("--wire-dtype is \"", wire_dtype, "\", must be float32 or bfloat16"));
  }
  GF_RETURN_IF_ERROR(ParseWaitPolicy(wait).status());
  GF_RETURN_IF_ERROR(hedge.Validate());
  if (on_missing_expert != "wait" && on_missing_expert != "fail" &&
      on_missing_expert != "renormalise") {
    return absl::InvalidArgumentError(absl::StrCat("--on-missing-expert is \"", on_missing_expert,
                                                   "\", must be wait, fail or renormalise"));
  }
  if (gateway.max_request_time <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat("--max-request-time is ",
                                                   absl::FormatDuration(gateway.max_request_time),
                                                   ", must be above 0"));
  }
  if (max_connection_age <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-connection-age is ", absl::FormatDuration(max_connection_age), ", must be above 0"));
  }
  GF_RETURN_IF_ERROR(CheckDrainLimit(drain_limit));
  if (scheduler.step_retry_timeout < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--step-retry-timeout is ", absl::FormatDuration(scheduler.step_retry_timeout),
                     ", must not be negative"));
  }
  // It is opened when all workers are there, which would be late to be told.
  if (!admin_listen.empty()) {
    GF_RETURN_IF_ERROR(Annotate(ParseAddress(admin_listen).status(), "--admin-listen"));
  }
  WorkerOptions common = worker;
  if (common.listen.empty()) common.listen = "in process";
  return common.Validate();
}

}  // namespace gatefold

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attention-service/attention_host.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/wait_policy.h"
#include "gatefold/worker/worker.h"

namespace gatefold {

struct AttentionServiceOptions {
  WorkerOptions worker;
  AttentionHostOptions host;
  std::string wait = "block";  // of the thread that polls the network; see wait_policy.h
  // After SIGTERM: how long sequences may still go on.
  absl::Duration drain_limit = absl::Seconds(30);

  absl::Status Validate() const {
    if (host.max_sequence_tokens < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--max-sequence-tokens is ", host.max_sequence_tokens, ", must not be negative"));
    }
    GF_RETURN_IF_ERROR(CheckDrainLimit(drain_limit));
    GF_RETURN_IF_ERROR(worker.Validate());
    // Used only when the weights are loaded, which takes a while.
    GF_RETURN_IF_ERROR(ParseWaitPolicy(wait).status());
    return ParseAddress(worker.listen).status();
  }
};

}  // namespace gatefold

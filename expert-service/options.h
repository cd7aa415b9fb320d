#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/worker/worker.h"

namespace gatefold {

struct ExpertServiceOptions {
  WorkerOptions worker;
  std::string backend =
      "auto";  // where experts are computed: auto, cpu or cuda; see expert_backend.h
  std::string weights = "checkpoint";  // how they are kept: checkpoint, int8 or int4
  std::string experts = "all";         // see expert_selection.h
  uint64_t capacity_bytes = 0;         // of memory that assigned experts may take; 0: not limited
  std::string load_from = "auto";      // see expert_supply.h
  int load_threads = 4;  // experts that are loaded at the same time, if they are assigned
  bool metrics_per_expert = false;  // a series per expert held
  std::string wait = "block";       // of the thread that polls the network; see wait_policy.h
  // After SIGTERM: how long calls may still come from routers that have not noticed.
  absl::Duration drain_quiet = absl::Seconds(2);
  // Without a router or planner that watches for so long there are none: nothing is needed.
  absl::Duration drain_unwatched = absl::Seconds(10);
  absl::Duration drain_limit = absl::Seconds(30);

  absl::Status Validate() const {
    if (load_threads < 1 || load_threads > 64) {
      return absl::InvalidArgumentError(
          absl::StrCat("--load-threads is ", load_threads, ", must be within 1 and 64"));
    }
    // A limit on memory that nobody heeds is worse than none.
    if (capacity_bytes > 0 && experts != "none") {
      return absl::InvalidArgumentError(
          absl::StrCat("--capacity is ", capacity_bytes, " and --experts is ", experts,
                       ": only experts that a planner assigns (none) are chosen by it"));
    }
    if (!worker.tls.server_name.empty() && worker.tls.ca_file.empty()) {
      return absl::InvalidArgumentError(
          "--tls-server-name needs --tls-ca-file: other shards are verified with it");
    }
    GF_RETURN_IF_ERROR(CheckDrainLimit(drain_limit));
    return worker.Validate();
  }
};

}  // namespace gatefold

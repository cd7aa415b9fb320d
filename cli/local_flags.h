#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/flag_set.h"
#include "cli/local_router.h"

namespace gatefold::cli {

// How a model is served in this process.
struct LocalFlags {
  std::string kv_memory = "1GiB";
  std::string prefix_cache = "on";
  std::string isa = "auto";
  std::string backend = "auto";
  std::string weights = "checkpoint";
  std::string wire_dtype = "float32";
  int threads = 0;
  int lanes = 1;
  int n_slices = 8;
  int max_step_tokens = 0;

  void AddTo(FlagSet* flags);
  // One of these flags that the command line has, as "--lanes"; empty if there is none.
  static std::string AnyGiven(const FlagSet& flags);
  // A usage error for a value that no model could be served with.
  absl::StatusOr<LocalRouterOptions> ToOptions(const std::string& model_dir) const;

 private:
  absl::Status Check() const;
};

}  // namespace gatefold::cli

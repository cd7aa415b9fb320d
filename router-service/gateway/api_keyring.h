#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gatefold/base/periodic_task.h"
#include "router-service/gateway/caller.h"

namespace gatefold {

// The keys of a file, followed as it changes. Limits are counted here, so each router has its own.
// Threads: safe.
class ApiKeyring {
 public:
  struct Options {
    std::string path;  // lines as in api_keys.h; mode 0600 or as small_file.h allows
    absl::Duration interval = absl::Seconds(1);  // zero: only Look() looks at the file again
    std::function<absl::Time()> clock = absl::Now;
  };

  // Errors name the file: kNotFound, kFailedPrecondition for its mode, kInvalidArgument.
  static absl::StatusOr<std::unique_ptr<ApiKeyring>> Open(Options options);

  // kPermissionDenied (API_KEY_INVALID) for a key that is unknown or revoked. Takes the same time
  // whichever key it is, and whether there is one or not.
  absl::StatusOr<std::shared_ptr<Caller>> Find(absl::string_view key) const;

  // Takes over what the file holds once it has held it at two looks, for it may be in the middle of
  // being written. Keys that stay the same keep what they have used of their limits. A file that
  // cannot be used is logged, and the old keys stay. Called by the ring's own thread.
  void Look();

 private:
  using Callers = std::vector<std::shared_ptr<Caller>>;

  explicit ApiKeyring(Options options) : options_(std::move(options)) {}
  absl::StatusOr<std::string> Read() const;
  absl::Status Use(std::string text);
  std::shared_ptr<const Callers> callers() const;

  const Options options_;
  std::string used_, seen_;  // by the one that looks
  absl::Status told_;        // what was logged last
  mutable absl::Mutex mu_;
  std::shared_ptr<const Callers> callers_ ABSL_GUARDED_BY(mu_);
  std::optional<PeriodicTask> watch_;  // last: it uses the others
};

// Who makes a call, and whether that is allowed: `authorization` is the metadata of that name
// ("Bearer KEY"), `method` as "/package.Service/Method". Health checks need no key (null), as those
// who balance loads and probe have none; AdminService and Channelz need one that is marked admin; all else,
// reflection too, any. Counts as one request of the key.
// Errors: kUnauthenticated (API_KEY_MISSING), kPermissionDenied (API_KEY_INVALID,
// ADMIN_KEY_REQUIRED), kResourceExhausted (RATE_LIMITED).
absl::StatusOr<std::shared_ptr<Caller>> Authorize(const ApiKeyring& keys, absl::string_view method,
                                                  absl::string_view authorization);

}  // namespace gatefold

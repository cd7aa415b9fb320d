#pragma once

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gatefold {

// Where workers are, as an operator says it: addresses, and names that stand for as many addresses
// as DNS knows for them (a headless Service), written "dns:NAME:PORT".
struct WorkerTargets {
  std::vector<std::string> addresses;
  std::vector<std::string> names;  // "NAME:PORT"

  bool empty() const { return addresses.empty() && names.empty(); }
  // InvalidArgument that names the part, one that is there twice too: it was meant to be another.
  static absl::StatusOr<WorkerTargets> Parse(absl::string_view list);
};

// Asks DNS again and again. gRPC's own resolver asks only when connections break, so it never sees
// that a Service has grown. Owns a thread.
class Discovery {
 public:
  struct Found {
    std::vector<std::string> experts, attention;  // ascending
    friend bool operator==(const Found&, const Found&) = default;
  };
  struct Options {
    std::vector<std::string> expert_names, attention_names;  // "NAME:PORT"
    absl::Duration interval = absl::Seconds(2);
    // Called on the thread whenever the answer differs from the one before.
    std::function<void(const Found&)> on_change;
    // Default: getaddrinfo. IP addresses of a host name.
    std::function<absl::StatusOr<std::vector<std::string>>(const std::string& host)> resolve;
  };

  explicit Discovery(Options options);
  ~Discovery();  // waits for a question under way

 private:
  void Run();
  // A name that DNS does not know now keeps the addresses it had: DNS fails more often than pods
  // do.
  std::vector<std::string> Resolve(const std::vector<std::string>& names);

  Options options_;
  struct Last {
    std::vector<std::string> addresses;
    std::string told;  // why DNS gave none when it was asked last; empty: it did
  };
  std::map<std::string, Last> last_;  // by name; the thread's
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gatefold

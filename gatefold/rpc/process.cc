#include "gatefold/rpc/process.h"

#include <grpc/support/log.h>
#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/log.h"
#include "google/protobuf/stubs/logging.h"

namespace gatefold {
namespace {

// Readable from the first signal on; never read, so that every waiter sees it.
std::atomic<int> g_event_fd{-1};
std::atomic<int> g_signal{0};

void Request(int signal) {
  int none = 0;
  g_signal.compare_exchange_strong(none, signal);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(g_event_fd.load(), &one, sizeof one);
}

// Only what a signal handler may call.
void OnSignal(int signal) {
  const int saved_errno = errno;
  if (g_signal.load() != 0) {  // asked twice: do not make the user wait
    std::signal(signal, SIG_DFL);
    raise(signal);
  }
  Request(signal);
  errno = saved_errno;
}

void InstallSignals() {
  g_event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  GF_CHECK(g_event_fd >= 0);
  struct sigaction action = {};
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  action.sa_handler = OnSignal;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
}

// Each connection is one. Shells and systemd give 1024 of those that they would allow.
void RaiseOpenFilesLimit() {
  constexpr rlim_t kEnough = 16384;  // gRPC polls all of them
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kEnough) return;
  limit.rlim_cur = std::min(kEnough, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Whoever reaches a port has gRPC complain of headers as often as they like, each a line of 8 KiB.
// So each kind of complaint is told once a second. Threads: safe.
class GrpcComplaints {
 public:
  // How many of that place went untold, if this one is to be told.
  std::optional<int> Tell(const std::string& place) {
    const absl::Time now = absl::Now();
    absl::MutexLock lock(&mu_);
    Told& told = told_[place];
    if (now - told.last < absl::Seconds(1) && now >= told.last) {
      ++told.n_untold;
      return std::nullopt;
    }
    told.last = now;
    return std::exchange(told.n_untold, 0);
  }

 private:
  struct Told {
    absl::Time last = absl::InfinitePast();
    int n_untold = 0;
  };
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, Told> told_ ABSL_GUARDED_BY(mu_);  // by place in the source
};

void LogOfGrpc(gpr_log_func_args* args) {
  static auto* const complaints = new GrpcComplaints();  // threads of gRPC's outlive main()
  const LogLevel level = args->severity == GPR_LOG_SEVERITY_ERROR  ? LogLevel::kWarning
                         : args->severity == GPR_LOG_SEVERITY_INFO ? LogLevel::kInfo
                                                                   : LogLevel::kDebug;
  const std::string place = absl::StrCat(args->file, ":", args->line);
  const std::optional<int> n_untold = complaints->Tell(place);
  if (!n_untold.has_value()) return;
  LogEvent(level, "grpc", {{"at", place}, {"untold", *n_untold}, {"message", args->message}});
}

// What it reports is what peers send, broken UTF-8 above all; the call's status says so already.
void LogOfProtobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  LogEvent(LogLevel::kDebug, "protobuf", {{"message", message}});
}

}  // namespace

void InitProcess() {
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TOP_PAD, 64 << 20);
#ifdef NDEBUG
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  // A connection that is being made is looked at by whoever waits for a call on it. With nobody
  // waiting only this poller does, and its default of 5 s is how long a restarted peer stays away.
  setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100", /*overwrite=*/0);
  setenv("GRPC_POLL_STRATEGY", "poll", /*overwrite=*/0);
  gpr_set_log_function(LogOfGrpc);
  google::protobuf::SetLogHandler(LogOfProtobuf);
  RaiseOpenFilesLimit();
  InstallSignals();
}

int WaitForTermination(absl::Time deadline) {
  GF_CHECK(g_event_fd >= 0);
  while (g_signal.load() == 0) {
    const absl::Duration left = deadline - absl::Now();
    if (left <= absl::ZeroDuration()) return 0;
    pollfd waited = {g_event_fd.load(), POLLIN, 0};
    // Never 0, which would make this a busy wait; a day at most, which fits.
    const int64_t left_ms = absl::ToInt64Milliseconds(std::min(left, absl::Hours(24))) + 1;
    poll(&waited, 1, static_cast<int>(left_ms));
  }
  return g_signal.load();
}

bool TerminationRequested() { return g_signal.load() != 0; }

void RequestTermination() { Request(SIGTERM); }

}  // namespace gatefold

#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "tests/integration/client.h"

namespace gatefold {

// Many streams that start again whenever they end, each with a prompt and a seed of its own, and
// each compared with what a quiet run gave. Where there are several routers, a stream whose router
// goes away goes on at the next from the tokens it has.
// Threads: one of its own per stream; the caller's is one.
class StreamLoad {
 public:
  static constexpr int kStreams = 16;
  static constexpr int kOutputTokens = 100;

  // One after the other, on a server that nothing happens to.
  static absl::StatusOr<std::vector<std::vector<int32_t>>> QuietTokens(
      const std::shared_ptr<grpc::Channel>& channel);

  // `routers`: channels to them. Returns when every stream has given a token.
  StreamLoad(const std::vector<std::shared_ptr<grpc::Channel>>& routers,
             std::vector<std::vector<int32_t>> quiet);
  ~StreamLoad() { Stop(); }
  void Stop();

  // Until every stream has given `n` tokens more; false: not within a minute.
  bool AwaitTokens(int n);

  // Since the last call: pauses between two tokens of a stream (one that still lasts included).
  using Pauses = std::vector<absl::Duration>;
  Pauses TakePauses();

  int n_resumed() const { return n_resumed_; }  // how often a stream went on at another router
  // What went wrong, at most a few lines; empty: nothing.
  std::string Errors() const;

 private:
  struct Stream {
    absl::Time last_token = absl::InfinitePast();  // InfinitePast: between two answers
    int n_tokens = 0;
  };
  void Run(int index);
  absl::StatusOr<std::vector<int32_t>> GenerateSomewhere(int index);
  void NoteToken(int index);
  void NoteError(const std::string& error);

  std::vector<std::unique_ptr<Client>> routers_;
  const std::vector<std::vector<int32_t>> quiet_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> n_resumed_{0};
  mutable absl::Mutex mu_;
  std::vector<Stream> streams_ ABSL_GUARDED_BY(mu_);
  Pauses pauses_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> errors_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

// Of pauses: 0.5 for the median, 1 for the longest; zero if there are none.
absl::Duration Quantile(StreamLoad::Pauses pauses, double quantile);
// "p50 1.2 ms, p99 3.0 ms, longest 40.1 ms, of 1234 tokens"
std::string ToString(const StreamLoad::Pauses& pauses);

}  // namespace gatefold

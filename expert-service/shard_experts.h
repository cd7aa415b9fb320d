#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "expert-service/expert_source.h"
#include "gatefold/model/expert_catalog.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {

// Fetches experts from other shards. Nothing is believed of them: what comes must have the shapes
// of the model and the digest of the manifest. One that is away, silent, slow or wrong costs one
// attempt, which is logged and counted; then the next holder is asked, and that one is left alone
// for a while: 5 s, twice as long each time up to a minute, until it gives an expert. An expert
// that is on its way takes its size in memory besides what the backend takes.
class ShardExperts final : public ExpertSource {
 public:
  struct Options {
    ChannelOptions channels;
    absl::Duration piece_timeout = absl::Seconds(10);  // between two messages, and until the first
    // Where all who have an expert are busy with sending others, they are asked again for so long:
    // for who has no checkpoint, either.
    absl::Duration busy_patience;
  };

  // The catalog has digests. They outlive it; `observer` may be null.
  ShardExperts(const ExpertCatalog* catalog, ExpertBackend* backend, LoadObserver* observer,
               const Options& options);

  absl::StatusOr<LoadedExpert> Get(ExpertId id, ThreadPool* threads) override;
  void SetHolders(std::vector<ExpertHolder> holders) override;

  // From now on nothing is fetched, and what is under way ends within some 100 ms. For good.
  void Stop() { stopped_ = true; }

 private:
  struct Transfer;
  // How long a holder that failed is left alone.
  struct Rest {
    absl::Time until = absl::InfinitePast();
    absl::Duration length;
  };
  struct Found {
    std::vector<std::string> awake;
    size_t n_resting = 0;
  };
  // What has come of asking for one expert.
  struct Attempts {
    std::set<std::string> failed, busy;  // those who will not be asked again, and those who will
    absl::Status last = absl::UnavailableError("it failed lately");
  };
  Found HoldersOf(ExpertId id) const;
  void NoteOutcome(const std::string& address, const absl::Status& status);
  absl::StatusOr<std::shared_ptr<grpc::Channel>> ChannelTo(const std::string& address);
  // Asks one holder after another but those that failed. NotFound: none is known.
  absl::StatusOr<Buffer> AskAll(ExpertId id, Attempts* attempts);
  // The expert's image, checked. The error's code says what kind of failure it is: see ReasonOf.
  absl::StatusOr<Buffer> Fetch(const std::string& address, ExpertId id);

  const ExpertCatalog* const catalog_;
  ExpertBackend* const backend_;
  LoadObserver* const observer_;
  const Options options_;
  std::atomic<bool> stopped_{false};
  mutable absl::Mutex mu_;
  std::vector<ExpertHolder> holders_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Rest> rests_ ABSL_GUARDED_BY(mu_);  // of those of holders_ that failed last
  // To those of holders_ that were asked.
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold

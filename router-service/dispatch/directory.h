#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/stream_client.h"
#include "router-service/dispatch/routing_table.h"

namespace gatefold {

// What this router is, and so what a worker must be to serve with it.
struct ClusterIdentity {
  std::string config_fingerprint;
  std::string model_fingerprint;
  bool allow_mixed_numerics = false;
  int n_layers = 0;
  int experts_per_layer = 0;
};

// Asks every worker what it is, again and again: the pods are the truth. Expert-services tell of
// changes themselves in between, so that one is known at once. Owns a thread.
// Threads: safe.
class Directory {
 public:
  struct Options {
    std::vector<std::string> expert_addresses;
    std::vector<std::string> attention_addresses;
    absl::Duration interval = absl::Seconds(1);                 // between two questions to a worker
    absl::Duration starting_interval = absl::Milliseconds(50);  // while it loads or is away
    absl::Duration answer_timeout = absl::Seconds(2);
    ChannelOptions channels;
  };

  struct Numerics {
    uint64_t numerics_class = 0;  // 0: none may serve yet
    std::string isa;              // as a worker of it says, for people
  };

  static absl::StatusOr<std::unique_ptr<Directory>> Start(const Options& options,
                                                          const ClusterIdentity& identity);
  ~Directory();

  std::shared_ptr<const RoutingTable> Table() const;

  // Rows that a shard's experts had computed when it was last asked, by item (layer *
  // experts_per_layer + expert), ascending. Not part of the table: it changes all the time.
  using ExpertRows = std::vector<std::pair<uint32_t, uint64_t>>;
  ExpertRows RowsOfShard(int index) const;

  // Whose answers sequences get, since the first shard that may serve decided it.
  Numerics ExpertNumerics() const;

  // What a shard had computed since its start when it was last asked.
  struct ShardWork {
    uint64_t incarnation = 0;
    uint64_t n_rows = 0;
    absl::Duration busy;
  };
  ShardWork WorkOfShard(int index) const;

  // Share of the time between its last two answers, about `interval` apart, that a worker spent
  // computing; 0 where it is not known.
  double BusyRatio(bool expert, int index) const;

  // Where workers are now, besides the addresses of the options. One that is no longer named is
  // asked until it cannot be reached: it may be draining. At most kMaxWorkers of each kind.
  void SetDiscovered(std::vector<std::string> experts, std::vector<std::string> attention);

  // Somebody could not reach it, or was refused: ask it now instead of at the next interval.
  void SuspectExpert(int index);
  void SuspectAttention(int index);

  // True once `ready` holds for the table; false at the deadline.
  bool Await(const std::function<bool(const RoutingTable&)>& ready, absl::Time deadline) const;

 private:
  struct Poll;  // the conversation with one worker

  Directory(const Options& options, const ClusterIdentity& identity);
  absl::Status Add(const std::string& address, bool expert, bool fixed);
  void TakeDiscovered(const std::vector<std::string>& addresses, bool expert);
  // One that is not named any more and cannot be reached; null if there is none.
  Poll* FindGone(bool expert);
  void Run();
  void Ask(Poll* poll, absl::Time now);
  void CountDescribe(const Poll& poll, absl::StatusCode code) const;
  void OnEvent(StreamEvent event);
  void Take(Poll* poll, const absl::StatusOr<grpc::ByteBuffer>& answer);
  // A worker's word about itself, or why there is none.
  void TakeEntry(Poll* poll, const absl::Status& status, WorkerEntry entry);
  void TakeShard(Poll* poll, internal::v1::ExpertShard* shard, WorkerEntry* entry);
  void TakeAnnouncement(Poll* poll, const grpc::ByteBuffer& answer);
  // Publishes a new table if an entry changed.
  void Update(const Poll& poll, WorkerEntry entry);
  // Moves what a description says of it out: it changes all the time.
  void NoteBusy(Poll* poll, WorkerEntry* entry);
  // Moves the counts out of a description.
  ExpertRows TakeRows(internal::v1::ExpertShard* shard) const;

  Options options_;  // never changes once it runs
  const ClusterIdentity identity_;
  std::vector<std::unique_ptr<Poll>> polls_;  // of both kinds; the thread's alone once it runs
  StreamSet streams_;                         // the thread's alone, but for Wake()

  mutable absl::Mutex mu_;
  // Of attention-services, of expert-services. Kept as long as the router lives:
  // a sequence must not go on in another class because the shards of its own are away.
  Numerics numerics_[2] ABSL_GUARDED_BY(mu_);
  std::shared_ptr<const RoutingTable> table_ ABSL_GUARDED_BY(mu_);
  std::vector<ExpertRows> rows_ ABSL_GUARDED_BY(mu_);  // by shard
  std::vector<ShardWork> work_ ABSL_GUARDED_BY(mu_);   // by shard
  std::vector<double> busy_experts_ ABSL_GUARDED_BY(mu_), busy_attention_ ABSL_GUARDED_BY(mu_);
  std::vector<std::pair<bool, int>> suspects_ ABSL_GUARDED_BY(mu_);  // expert or not, index
  struct Discovered {
    std::vector<std::string> experts, attention;
  };
  std::optional<Discovered> discovered_ ABSL_GUARDED_BY(mu_);  // not looked at yet
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gatefold

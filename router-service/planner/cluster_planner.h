#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/stream_client.h"
#include "router-service/dispatch/directory.h"
#include "router-service/planner/assigner.h"
#include "router-service/planner/holders.h"
#include "router-service/planner/load_average.h"
#include "router-service/planner/planner.h"
#include "router-service/planner/shard_speeds.h"

namespace gatefold {

// Keeps a cluster on plan: looks at what shards announce, plans, and tells each shard what to hold.
// Shards that were started with fixed experts are left alone; what they hold counts as a bonus. It
// has no state that matters: a new one starts from what shards announce. Owns a thread.
class ClusterPlanner {
 public:
  struct Options {
    PlannerOptions plan;
    absl::Duration interval = absl::Seconds(1);         // between looks, if nothing changed
    absl::Duration grace = absl::Seconds(3);            // see Assigner
    absl::Duration half_life = absl::Seconds(60);       // of the moving average of load
    absl::Duration speed_half_life = absl::Minutes(5);  // of that of how fast shards are
    absl::Duration answer_timeout = absl::Seconds(2);
    ChannelOptions channels;
  };
  struct Sizes {
    int n_layers = 0;
    int n_experts = 0;  // of a layer; slices of a dense one
    uint64_t expert_bytes = 0;
  };
  struct Status {
    uint64_t n_moves = 0;    // (shard, expert) pairs that shards were told to load
    double imbalance = 1;    // of the last plan
    size_t n_uncovered = 0;  // of the last plan, for lack of room
  };

  // The directory outlives the planner.
  static absl::StatusOr<std::unique_ptr<ClusterPlanner>> Start(const Options& options,
                                                               const Sizes& sizes,
                                                               Directory* directory);
  ~ClusterPlanner();

  Status status() const;

  // Plans now, with shards evened out as far as moves can, and returns the plan; carrying it out
  // goes on afterwards. Errors: DeadlineExceeded; FailedPrecondition: no shard takes assignments;
  // what MakePlan says.
  absl::StatusOr<Plan> Rebalance(absl::Time deadline);

 private:
  // What this planner knows of one shard besides what the shard says.
  struct Shard {
    std::string address;
    std::shared_ptr<grpc::Channel> channel;
    uint64_t incarnation = 0;      // that `target` and `told` are about
    uint64_t epoch = 0;            // of the last assignment that was sent, or another planner's
    std::vector<uint32_t> target;  // of the last plan
    bool planned = false;          // `target` means something
    std::vector<uint32_t> told;    // accepted by the shard
    bool was_told = false;
    // By address: what it was told can be fetched there, ascending; and when it was told.
    std::map<std::string, std::vector<uint32_t>> holders;
    absl::Time told_at = absl::InfinitePast();
  };
  // An assignment on its way.
  struct Message {
    int shard = 0;
    std::vector<uint32_t> experts;
    PeerStream* stream = nullptr;
  };

  ClusterPlanner(const Options& options, const Sizes& sizes, Directory* directory);
  void Run();
  // Knows all shards of the table, at the addresses they have now.
  absl::Status Meet(const RoutingTable& table);
  absl::StatusOr<Plan> Look(const RoutingTable& table, absl::Time now,
                            const PlannerOptions& options);
  PlannerInput MakeInput(const RoutingTable& table, absl::Time now);
  std::vector<ShardView> Views(const RoutingTable& table) const;
  // As in the table: fixed shards send experts, too.
  std::vector<HolderView> HolderViews(const RoutingTable& table) const;
  // Some of what shard `index` misses can be fetched somewhere, and nobody whom it was told gives
  // it any more.
  bool KnowsTooLittle(int index, const std::vector<uint32_t>& missing, const RoutingTable& table,
                      const std::vector<HolderView>& views) const;
  void Tell(const RoutingTable& table, const std::vector<ShardView>& views,
            std::vector<std::optional<std::vector<uint32_t>>> next, absl::Time now);
  static void LogAssignment(const std::string& shard, uint64_t epoch,
                            const std::vector<uint32_t>& announced,
                            const std::vector<uint32_t>& experts);
  void AwaitAnswers(std::vector<Message>* messages);
  void CountAttempt(absl::StatusCode code, absl::Duration time) const;
  std::vector<uint32_t> Announced(const WorkerEntry& entry) const;

  const Options options_;
  const Sizes sizes_;
  Directory* const directory_;

  // The thread's alone, once it runs.
  std::vector<Shard> shards_;  // as in the table
  std::vector<int> of_plan_;   // indices of the shards that take part, in the plan's order
  LoadAverage load_;
  ShardSpeeds speeds_;
  Assigner assigner_;
  StreamSet streams_;

  mutable absl::Mutex mu_;
  Status status_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  int n_rebalances_wanted_ ABSL_GUARDED_BY(mu_) = 0, n_rebalances_ ABSL_GUARDED_BY(mu_) = 0;
  absl::StatusOr<Plan> rebalanced_ ABSL_GUARDED_BY(mu_);  // the last time it was wanted
  std::thread thread_;
};

}  // namespace gatefold

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/stream_client.h"
#include "router-service/dispatch/answer_verifier.h"
#include "router-service/dispatch/directory.h"
#include "router-service/dispatch/dispatch_counters.h"
#include "router-service/dispatch/expert_batch.h"
#include "router-service/dispatch/expert_call.h"
#include "router-service/dispatch/hedging.h"
#include "router-service/dispatch/peer_link.h"
#include "router-service/dispatch/shard_pace.h"

namespace gatefold {

struct RemoteExpertOptions {
  internal::v1::WireDtype dtype = internal::v1::WIRE_DTYPE_FLOAT32;
  WaitPolicy wait;
  ChannelOptions channels;
  HedgeOptions hedge;
  double verify_share = 0;   // of all calls: computed again on a replica and compared
  bool renormalise = false;  // a row goes on without an expert that no live shard holds
  // A call that is not answered for so long fails, though its shard still says what it holds; and
  // sooner, but not before `silence`, if it takes many times what is usual.
  absl::Duration call_timeout = absl::Seconds(20);
  absl::Duration silence = absl::Seconds(2);
  // For an answer without which the other rows of the step cannot go on, where there is no replica;
  // or longer, if that is usual. Then its rows are left to wait.
  absl::Duration patience = absl::Milliseconds(250);
  int max_attempts = 4;  // per step and layer
};

// Sends each row once to every shard that holds some of its experts, and takes one answer per (row,
// expert). What fails is sent again, and what is late is sent to a replica as well: the first
// answer is taken, a later one dropped.
class RemoteExpertClient final : public ExpertClient {
 public:
  // Directory and counters outlive the client.
  RemoteExpertClient(const RemoteExpertOptions& options, uint64_t router_id, int d_model,
                     Directory* directory, DispatchCounters* counters);
  ~RemoteExpertClient() override;

  absl::Status Run(const Step& step, int layer, const float* h, const Routes& routes,
                   float* answers, uint8_t* served_by) override;
  const std::vector<MissingExpert>& missing() const override { return missing_; }
  ExpertState StateOf(int layer, int expert) override;

 private:
  struct Link {
    std::string address;
    std::unique_ptr<PeerLink> link;              // null until used
    absl::Time reported = absl::InfinitePast();  // when the log said something of it
  };

  // ---- Sending: remote_expert_client.cc.
  absl::Status SendUnsent(ExpertBatch* batch);
  void Launch(ExpertBatch* batch, ExpertCall call);
  absl::Status Send(const ExpertBatch& batch, const ExpertCall& call, uint64_t token);
  // For slots that no live shard computes: an error, unless they can be dropped.
  absl::Status Missing(ExpertBatch* batch, ExpertBatch::Slots slots);
  // Where the policy says so, rows go on without `slots` that no shard holds, but not without all
  // of their experts. What cannot be dropped is left in `slots`.
  void Drop(ExpertBatch* batch, ExpertBatch::Slots* slots);
  absl::Status Unavailable(const ExpertBatch& batch, size_t slot) const;

  // ---- Calls that are late, or were sent for a comparison: late_calls.cc.
  void Look(ExpertBatch* batch);
  absl::Time LateAt(const ExpertBatch& batch, const ExpertCall& call) const;
  absl::Time SilentAt(const ExpertCall& call) const;
  absl::Time PatientUntil(const ExpertCall& call) const;
  // What its experts usually take elsewhere: the slowest of them, each on the fastest other shard
  // that holds it; `otherwise` for one of which nothing is known.
  absl::Duration UsualElsewhere(const ExpertBatch& batch, const ExpertCall& call,
                                absl::Duration otherwise) const;
  void Hedge(ExpertBatch* batch, uint64_t token);
  // One of the calls that would answer the slot failed. If those that are left are all late, it is
  // hedged, or left to wait, as if that one had never been sent.
  void HedgeAgain(ExpertBatch* batch, size_t slot);
  // What the time of an answer says of its shard.
  void Judge(const ExpertBatch& batch, const ExpertCall& call);
  // Sends `slots`, which `shard` computes, to others whose trial is due as well. Nobody waits.
  void Try(ExpertBatch* batch, int shard, ExpertBatch::Slots slots);
  void JudgeTrial(const ExpertCall& call, absl::Time came);
  void Verify(ExpertBatch* batch, const ExpertCall& answered, ExpertBatch::Slots slots);
  // Nobody waits any more for what the batch has under way.
  void Abandon(const ExpertBatch& batch);
  // Takes what came since the last run from shards that still owe answers.
  void CatchUp();
  // Closes the connections to a shard that does not answer: all calls to it fail.
  void GiveUp(ExpertBatch* batch, int shard);

  // ---- Answers and failures: call_results.cc. `batch` is null between two runs.
  // Its connections are gone or closed here, and all calls to it fail.
  void Lose(ExpertBatch* batch, int shard, const absl::Status& status,
            DispatchCounters::Count* retries);
  bool MayReport(int shard, absl::Time now);  // so that the log is not filled
  void Take(ExpertBatch* batch, const StreamEvent& event);
  void TakeAnswer(ExpertBatch* batch, uint64_t token, const grpc::ByteBuffer& answer);
  // values: [slots, d_model].
  void TakeFirst(ExpertBatch* batch, const ExpertCall& call, FloatReader values);
  // The call is over without an answer.
  void Fail(ExpertBatch* batch, uint64_t token, const absl::Status& status,
            DispatchCounters::Count* retries);
  // Calls that end elsewhere than in the run that sent them, and verifications.
  void Settle(const ExpertCall& call);
  bool Current(const ExpertBatch* batch, const ExpertCall& call) const;

  const RemoteExpertOptions options_;
  const uint64_t router_id_;
  const int d_model_;
  Directory* const directory_;
  DispatchCounters* const counters_;
  StreamSet streams_;
  std::vector<Link> links_;  // by shard
  ShardPace pace_;
  HedgeBudget budget_;
  AnswerVerifier verifier_;

  absl::flat_hash_map<uint64_t, ExpertCall> calls_;  // under way, by token; of earlier runs, too
  uint64_t next_token_ = 1;
  uint64_t n_batches_ = 0;
  int n_owed_ = 0;       // of calls_: of earlier runs, and trials; nobody waits for them
  absl::Time looked_;    // when no answer was there last
  int n_verifying_ = 0;  // of calls_: verifications
  std::vector<MissingExpert> missing_;
  FramePayload payload_;  // the answer that is read
};

}  // namespace gatefold

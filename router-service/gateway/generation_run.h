#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "router-service/gateway/candidate_transcript.h"
#include "router-service/gateway/event_buffer.h"
#include "router-service/gateway/gateway_context.h"
#include "router-service/gateway/origin.h"
#include "router-service/gateway/prepared_generation.h"
#include "router-service/gateway/request_end.h"
#include "router-service/gateway/routing_record.h"
#include "router-service/gateway/token_logprobs.h"

namespace gatefold {

// One GenerateText request from its arrival to its last event: prepares it, submits its candidates
// to the scheduler, and turns what the scheduler tells into events.
// Its reader, the preparation pool and the lanes of its candidates use it at the same time.
// Threads: safe.
class GenerationRun : public std::enable_shared_from_this<GenerationRun> {
 public:
  using Request = inference::v1::StreamGenerateTextRequest;
  using Event = EventBuffer::Event;

  // `wake` is called, from any thread and with no lock held, when there is something to take after
  // Take() answered kNothingYet; not after Cancel(), but for a call already under way.
  GenerationRun(const GatewayContext* context, Request request, absl::Time deadline,
                std::function<void()> wake, Origin origin = {});

  // Checks the request and claims its id. False: refused, and Take() tells why. Quick.
  bool Accept();
  // Tokenises and submits. May take a second.
  void Prepare();
  // Ends it before its time; what was produced can still be taken, then comes `status`.
  void Fail(absl::Status status);
  // The reader is gone: frees everything it holds.
  void Cancel();
  // Ends it in good order with FINISH_REASON_CANCELLED, as an administrator may.
  void FinishEarly();

  EventBuffer::Taken Take(Event* event, absl::Status* status);

 private:
  class Listener;
  struct Candidate {
    explicit Candidate(CandidateTranscript transcript) : transcript(std::move(transcript)) {}
    CandidateTranscript transcript;
    bool finished = false;
    inference::v1::FinishReason reason = inference::v1::FINISH_REASON_UNSPECIFIED;
    absl::Time last_token = absl::InfinitePast();
  };
  // What is left to do once the lock is released.
  struct Aftermath {
    std::function<void()> wake;
    std::optional<RequestReport> report;
    std::optional<absl::Duration> ttft, itl;
    std::vector<std::unique_ptr<GenerationService::Handle>> dropped;
  };

  // What it may come to, of the caller's tokens.
  absl::Status TakeTokens(const PreparedGeneration& prepared);
  // False: there is nothing to submit.
  bool Install(PreparedGeneration prepared);
  void HoldHandle(std::unique_ptr<GenerationService::Handle> handle);
  bool WantsPromptDetails() const;

  // From the scheduler, for candidate `index`.
  void OnFirstStep(int index, int n_cached);
  void OnDegraded(int n_tokens);
  void OnTrace(int index, const TraceChunk& chunk);
  void OnPromptScores(int first_position, const std::vector<Sampled>& scores);
  bool OnToken(int index, const Sampled& token);
  void OnEnd(int index, const GenerationEnd& end);

  void Open() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Push(CandidateTranscript::Delta delta, Aftermath* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether shards of different numerics classes took part is for its summary to say, though they
  // be gone by then.
  void NoteNumerics() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteTokenTime(Candidate* candidate, Aftermath* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void FinishCandidate(int index, StopCause cause, int32_t stop_token, Aftermath* after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void End(absl::Status status, Aftermath* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  inference::v1::Summary MakeSummary() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  RequestReport MakeReport(const absl::Status& status) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the routes away.
  cluster::v1::GenerationTrace MakeTrace(const RequestReport& report)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  inference::v1::Usage MakeUsage(int n_output_tokens) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ClaimWake(Aftermath* after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Settle(Aftermath after);

  const GatewayContext& context_;
  const Request request_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  const Origin origin_;

  absl::Mutex mu_;
  TokenHold hold_ ABSL_GUARDED_BY(mu_);
  std::function<void()> wake_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<LiveRequests::Lease> lease_ ABSL_GUARDED_BY(mu_);
  std::string refused_id_ ABSL_GUARDED_BY(mu_);  // see RequestReport
  EventBuffer events_ ABSL_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<GenerationService::Handle>> handles_ ABSL_GUARDED_BY(mu_);
  inference::v1::GenerationConfig config_ ABSL_GUARDED_BY(mu_);
  inference::v1::PromptInfo prompt_info_ ABSL_GUARDED_BY(mu_);
  RoutingRecord routing_ ABSL_GUARDED_BY(mu_);
  std::optional<PromptLogprobs> prompt_logprobs_ ABSL_GUARDED_BY(mu_);
  std::vector<Candidate> candidates_ ABSL_GUARDED_BY(mu_);
  std::optional<StopCause> resumed_end_ ABSL_GUARDED_BY(mu_);
  int n_cached_tokens_ ABSL_GUARDED_BY(mu_) = 0;  // of the first candidate's prompt
  int n_truncated_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t n_degraded_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  bool mixed_numerics_ ABSL_GUARDED_BY(mu_) = false;
  GenerationTimings timings_ ABSL_GUARDED_BY(mu_);  // earliest and latest over all candidates
};

}  // namespace gatefold

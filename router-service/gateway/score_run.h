#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "router-service/gateway/gateway_context.h"
#include "router-service/gateway/origin.h"
#include "router-service/gateway/token_logprobs.h"

namespace gatefold {

// One ScoreText request from its arrival to its answer. Threads: safe.
class ScoreRun : public std::enable_shared_from_this<ScoreRun> {
 public:
  using Response = inference::v1::ScoreTextResponse;
  using Done = std::function<void(absl::StatusOr<Response>)>;

  // `done` is called once, from any thread and with no lock held; not after Cancel().
  ScoreRun(const GatewayContext* context, inference::v1::ScoreTextRequest request,
           absl::Time deadline, Done done, Origin origin = {});

  // See GenerationRun.
  bool Accept();
  void Prepare();
  void Fail(absl::Status status) { End(std::move(status)); }
  void Cancel();

 private:
  class Listener;

  // All but its id.
  absl::StatusOr<GenerationRequest> PrepareInputs() const;
  // Takes the caller's tokens, too.
  absl::Status Install(const std::vector<int32_t>& prompt);
  void OnFirstStep();
  void NoteNumerics() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void OnDegraded(int n_tokens);
  void OnTrace(const TraceChunk& chunk);
  void OnPromptScores(int first_position, const std::vector<Sampled>& scores);
  void OnEnd(const GenerationEnd& end);
  // Answers with `response_` if OK.
  void End(absl::Status status);
  RequestReport MakeReport(const absl::Status& status) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const GatewayContext& context_;
  const inference::v1::ScoreTextRequest request_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  const Origin origin_;

  absl::Mutex mu_;
  TokenHold hold_ ABSL_GUARDED_BY(mu_);
  Done done_ ABSL_GUARDED_BY(mu_);  // null: answered
  std::unique_ptr<LiveRequests::Lease> lease_ ABSL_GUARDED_BY(mu_);
  std::string refused_id_ ABSL_GUARDED_BY(mu_);  // see RequestReport
  std::unique_ptr<GenerationService::Handle> handle_ ABSL_GUARDED_BY(mu_);
  std::optional<PromptLogprobs> logprobs_ ABSL_GUARDED_BY(mu_);
  Response response_ ABSL_GUARDED_BY(mu_);
  int n_scored_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time first_step_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace gatefold

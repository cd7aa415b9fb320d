#include "router-service/gateway/score_run.h"

#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "router-service/gateway/effective_config.h"
#include "router-service/gateway/prompt_encoder.h"
#include "router-service/gateway/request_end.h"
#include "router-service/gateway/routing_trace.h"

namespace gatefold {

class ScoreRun::Listener final : public GenerationListener {
 public:
  explicit Listener(std::shared_ptr<ScoreRun> run) : run_(std::move(run)) {}
  void OnFirstStep(int /*n_cached*/) override { run_->OnFirstStep(); }
  void OnDegraded(int n_tokens) override { run_->OnDegraded(n_tokens); }
  void OnTrace(const TraceChunk& chunk) override { run_->OnTrace(chunk); }
  void OnPromptScores(int first_position, const std::vector<Sampled>& scores) override {
    run_->OnPromptScores(first_position, scores);
  }
  bool OnToken(const Sampled& /*token*/) override { return false; }  // none were asked for
  void OnEnd(const GenerationEnd& end) override { run_->OnEnd(end); }

 private:
  const std::shared_ptr<ScoreRun> run_;
};

ScoreRun::ScoreRun(const GatewayContext* context, inference::v1::ScoreTextRequest request,
                   absl::Time deadline, Done done, Origin origin)
    : context_(*context),
      request_(std::move(request)),
      arrival_(context_.clock()),
      deadline_(deadline),
      origin_(std::move(origin)),
      done_(std::move(done)) {}

bool ScoreRun::Accept() {
  if (context_.observer != nullptr) context_.observer->OnRequestStarted(RequestKind::kScore);
  absl::Status status = context_.checker->Check(request_);
  if (status.ok()) {
    std::weak_ptr<ScoreRun> weak = weak_from_this();
    auto lease = context_.live->Claim(
        request_.request_id(), context_.options.retry_delay,
        [weak] {
          if (auto run = weak.lock()) {
            run->Fail(absl::CancelledError("cancelled by an administrator"));
          }
        },
        origin_.caller_name());
    if (lease.ok()) {
      absl::MutexLock lock(&mu_);
      lease_ = *std::move(lease);
      return true;
    }
    status = lease.status();
  }
  if (context_.checker->CheckRequestId(request_.request_id()).ok()) {
    absl::MutexLock lock(&mu_);
    refused_id_ = request_.request_id();
  }
  End(std::move(status));
  return false;
}

void ScoreRun::Prepare() {
  std::string request_id;
  {
    absl::MutexLock lock(&mu_);
    if (done_ == nullptr) return;
    request_id = lease_->id();
  }
  absl::StatusOr<GenerationRequest> request = PrepareInputs();
  if (!request.ok()) return End(request.status());
  request->request_id = std::move(request_id);
  if (absl::Status taken = Install(request->prompt); !taken.ok()) return End(std::move(taken));
  auto handle =
      context_.service->Submit(*std::move(request), std::make_shared<Listener>(shared_from_this()));
  if (!handle.ok()) return End(handle.status());
  absl::MutexLock lock(&mu_);
  // If it ended meanwhile, the handle goes with this frame, after the lock.
  if (done_ != nullptr) handle_ = *std::move(handle);
}

absl::StatusOr<GenerationRequest> ScoreRun::PrepareInputs() const {
  GF_RETURN_IF_ERROR(CheckTimeLeft(context_.clock(), deadline_));
  GenerationRequest request;
  GF_ASSIGN_OR_RETURN(request.prompt, EncodePrompt(request_.prompt(), context_.codec));
  const int64_t n_prompt = request.prompt.size();
  if (n_prompt == 0) return BadField("prompt", "has no tokens");
  if (n_prompt > context_.max_sequence_tokens) {
    return ContextLengthExceeded(n_prompt, context_.max_sequence_tokens);
  }
  inference::v1::OutputOptions output;
  output.set_prompt_logprobs(true);
  output.set_top_logprobs(request_.top_logprobs());
  output.set_routing_trace(request_.routing_trace());
  GF_RETURN_IF_ERROR(CheckResponseSize(output, context_.model, n_prompt,
                                       context_.options.limits.max_response_bytes));
  request.score_prompt = true;
  request.n_prompt_top_logprobs = static_cast<int>(request_.top_logprobs());
  request.want_last_logits = request_.last_logits();
  request.want_trace = request_.routing_trace();
  request.deadline = deadline_;
  request.traceparent = origin_.traceparent;
  GF_RETURN_IF_ERROR(CheckTimeLeft(context_.clock(), deadline_));
  return request;
}

absl::Status ScoreRun::Install(const std::vector<int32_t>& prompt) {
  absl::MutexLock lock(&mu_);
  if (done_ == nullptr) return absl::CancelledError("the caller left");
  GF_RETURN_IF_ERROR(hold_.Take(origin_.caller, static_cast<int64_t>(prompt.size())));
  logprobs_.emplace(prompt, context_.codec);
  response_.mutable_token_ids()->Add(prompt.begin(), prompt.end());
  response_.mutable_usage()->set_prompt_tokens(prompt.size());
  return absl::OkStatus();
}

void ScoreRun::OnFirstStep() {
  absl::MutexLock lock(&mu_);
  first_step_ = context_.clock();
  NoteNumerics();
}

void ScoreRun::NoteNumerics() {
  if (context_.cluster->mixed_numerics()) response_.set_mixed_numerics(true);
}

void ScoreRun::OnDegraded(int n_tokens) {
  absl::MutexLock lock(&mu_);
  response_.set_degraded_tokens(response_.degraded_tokens() + n_tokens);
}

void ScoreRun::OnTrace(const TraceChunk& chunk) {
  const std::vector<std::string> shard_names = context_.cluster->ShardNames();
  bool follows;
  {
    absl::MutexLock lock(&mu_);
    follows = AppendTrace(chunk, 0, std::numeric_limits<int>::max(), shard_names,
                          response_.mutable_routing_trace());
  }
  if (!follows) {
    End(absl::InternalError(
        absl::StrCat("the routing trace has a gap before position ", chunk.first_position)));
  }
}

void ScoreRun::OnPromptScores(int first_position, const std::vector<Sampled>& scores) {
  absl::MutexLock lock(&mu_);
  if (done_ == nullptr || first_position != n_scored_) return;  // a gap shows in the count
  n_scored_ += static_cast<int>(scores.size());
  NoteNumerics();
  logprobs_->Add(first_position, scores);
  for (const Sampled& score : scores) {
    response_.add_argmax(score.argmax);
    if (score.logits.empty()) continue;
    std::string* raw = response_.mutable_last_logits();
    raw->resize(score.logits.size() * sizeof(float));
    static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
    std::memcpy(raw->data(), score.logits.data(), raw->size());
  }
}

void ScoreRun::OnEnd(const GenerationEnd& end) {
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    if (end.cause == StopCause::kError || end.cause == StopCause::kCancelled) {
      status = OutcomeOf(end);
    } else if (n_scored_ != response_.token_ids_size()) {
      status = absl::InternalError(absl::StrCat(
          "only ", n_scored_, " of ", response_.token_ids_size(), " positions were scored"));
    }
  }
  End(std::move(status));
}

void ScoreRun::End(absl::Status status) {
  Done done;
  Response response;
  std::unique_ptr<GenerationService::Handle> handle;
  std::unique_ptr<LiveRequests::Lease> lease;
  RequestReport report;
  {
    absl::MutexLock lock(&mu_);
    if (done_ == nullptr) return;
    report = MakeReport(status);
    const bool submitted = handle_ != nullptr || first_step_ != absl::InfinitePast();
    hold_.Settle(submitted ? report.n_prompt_tokens : 0);
    done = std::exchange(done_, nullptr);
    response = std::move(response_);
    handle = std::move(handle_);
    lease = std::move(lease_);
    if (status.ok()) {
      response.set_request_id(lease->id());
      logprobs_->MoveTo(response.mutable_tokens());
    }
  }
  handle.reset();
  lease.reset();  // before the caller can know that it ended
  ReportEnd(report, context_.observer);
  if (status.ok()) {
    done(std::move(response));
  } else {
    done(std::move(status));
  }
}

void ScoreRun::Cancel() {
  {
    absl::MutexLock lock(&mu_);
    if (done_ == nullptr) return;
    done_ = [](const absl::StatusOr<Response>&) {};
  }
  End(CallerLeft(context_.clock(), deadline_));
}

RequestReport ScoreRun::MakeReport(const absl::Status& status) const {
  RequestReport report;
  if (lease_ != nullptr) report.request_id = lease_->id();
  report.refused_id = refused_id_;
  report.caller = origin_.caller_name();
  report.traceparent = origin_.traceparent;
  report.kind = RequestKind::kScore;
  report.status = status;
  report.n_prompt_tokens = response_.token_ids_size();
  report.n_degraded_tokens = static_cast<int>(response_.degraded_tokens());
  report.mixed_numerics = response_.mixed_numerics();
  report.topology_version = context_.cluster->topology_version();
  if (first_step_ != absl::InfinitePast()) report.queue = first_step_ - arrival_;
  report.end_to_end = context_.clock() - arrival_;
  return report;
}

}  // namespace gatefold

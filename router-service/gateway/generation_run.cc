#include "router-service/gateway/generation_run.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/rpc/proto_time.h"
#include "router-service/gateway/routing_trace.h"

namespace gatefold {

// Keeps the run alive for as long as the scheduler may tell it something.
class GenerationRun::Listener final : public GenerationListener {
 public:
  Listener(std::shared_ptr<GenerationRun> run, int index) : run_(std::move(run)), index_(index) {}
  void OnFirstStep(int n_cached) override { run_->OnFirstStep(index_, n_cached); }
  void OnDegraded(int n_tokens) override { run_->OnDegraded(n_tokens); }
  void OnTrace(const TraceChunk& chunk) override { run_->OnTrace(index_, chunk); }
  void OnPromptScores(int first_position, const std::vector<Sampled>& scores) override {
    run_->OnPromptScores(first_position, scores);
  }
  bool OnToken(const Sampled& token) override { return run_->OnToken(index_, token); }
  void OnEnd(const GenerationEnd& end) override { run_->OnEnd(index_, end); }

 private:
  const std::shared_ptr<GenerationRun> run_;
  const int index_;
};

GenerationRun::GenerationRun(const GatewayContext* context, Request request, absl::Time deadline,
                             std::function<void()> wake, Origin origin)
    : context_(*context),
      request_(std::move(request)),
      arrival_(context_.clock()),
      deadline_(deadline),
      origin_(std::move(origin)),
      wake_(std::move(wake)),
      events_(context_.options.max_delta_bytes, context_.options.max_unread_bytes),
      routing_(context_.options.max_kept_routing_bytes),
      timings_{arrival_, absl::InfinitePast(), absl::InfinitePast(), absl::InfinitePast()} {}

// ---- From arrival to the scheduler.

bool GenerationRun::Accept() {
  if (context_.observer != nullptr) context_.observer->OnRequestStarted(RequestKind::kGenerate);
  absl::Status status = context_.checker->Check(request_.request(), request_.resume_token_ids());
  if (status.ok() && origin_.caller != nullptr) {
    status = origin_.caller->CheckPriority(request_.request().priority());
  }
  if (status.ok()) {
    std::weak_ptr<GenerationRun> weak = weak_from_this();
    auto lease = context_.live->Claim(
        request_.request().request_id(), context_.options.retry_delay,
        [weak] {
          if (auto run = weak.lock()) run->FinishEarly();
        },
        origin_.caller_name());
    if (lease.ok()) {
      absl::MutexLock lock(&mu_);
      lease_ = *std::move(lease);
      return true;
    }
    status = lease.status();
  }
  if (context_.checker->CheckRequestId(request_.request().request_id()).ok()) {
    absl::MutexLock lock(&mu_);
    refused_id_ = request_.request().request_id();
  }
  Fail(std::move(status));
  return false;
}

void GenerationRun::Prepare() {
  std::string request_id;
  {
    absl::MutexLock lock(&mu_);
    if (events_.ended()) return;
    request_id = lease_->id();
  }
  absl::StatusOr<PreparedGeneration> prepared = PrepareGeneration(context_, request_, deadline_);
  if (!prepared.ok()) return Fail(prepared.status());
  if (absl::Status taken = TakeTokens(*prepared); !taken.ok()) return Fail(std::move(taken));
  std::vector<GenerationRequest> submissions =
      Submissions(context_, request_, *prepared, request_id, deadline_);
  if (!Install(*std::move(prepared))) return;
  for (size_t i = 0; i < submissions.size(); ++i) {
    submissions[i].traceparent = origin_.traceparent;
    auto handle = context_.service->Submit(std::move(submissions[i]),
                                           std::make_shared<Listener>(shared_from_this(), i));
    if (!handle.ok()) return Fail(handle.status());
    HoldHandle(*std::move(handle));
  }
}

absl::Status GenerationRun::TakeTokens(const PreparedGeneration& prepared) {
  // However many were asked for, the model's length ends the output, too. What was resumed fits in
  // either.
  const int64_t n_prompt = static_cast<int64_t>(prepared.prompt.size());
  const int64_t n_output = std::min<int64_t>(prepared.config.max_output_tokens(),
                                             context_.max_sequence_tokens - n_prompt) -
                           request_.resume_token_ids_size();
  const int64_t n_candidates = static_cast<int64_t>(prepared.transcripts.size());
  absl::MutexLock lock(&mu_);
  if (events_.ended()) return absl::OkStatus();
  return hold_.Take(origin_.caller, n_prompt + n_candidates * n_output);
}

bool GenerationRun::WantsPromptDetails() const {
  const auto& output = request_.request().output();
  return output.prompt_logprobs() || output.routing_trace();
}

bool GenerationRun::Install(PreparedGeneration prepared) {
  const auto& output = request_.request().output();
  Aftermath after;
  bool submit = true;
  {
    absl::MutexLock lock(&mu_);
    if (events_.ended()) return false;
    config_ = std::move(prepared.config);
    for (CandidateTranscript& each : prepared.transcripts) {
      candidates_.emplace_back(std::move(each));
    }
    resumed_end_ = prepared.resumed_end;
    prompt_info_.set_n_tokens(prepared.prompt.size());
    prompt_info_.set_n_truncated_tokens(prepared.n_truncated);
    n_truncated_tokens_ = prepared.n_truncated;
    if (output.token_ids()) {
      prompt_info_.mutable_token_ids()->Add(prepared.prompt.begin(), prepared.prompt.end());
    }
    if (output.prompt_logprobs()) prompt_logprobs_.emplace(prepared.prompt, context_.codec);
    if (!WantsPromptDetails()) {
      Open();
      if (resumed_end_.has_value()) {
        submit = false;
        FinishCandidate(0, *resumed_end_, -1, &after);
      }
      ClaimWake(&after);
    }
  }
  Settle(std::move(after));
  return submit;
}

void GenerationRun::HoldHandle(std::unique_ptr<GenerationService::Handle> handle) {
  absl::MutexLock lock(&mu_);
  // If it ended meanwhile, the handle goes with this frame, after the lock.
  if (!events_.ended()) handles_.push_back(std::move(handle));
}

// ---- From the scheduler to events.

void GenerationRun::OnFirstStep(int index, int n_cached) {
  absl::MutexLock lock(&mu_);
  if (index == 0) n_cached_tokens_ = n_cached;
  // Of the first candidate that begins.
  if (timings_.first_step == absl::InfinitePast()) timings_.first_step = context_.clock();
  NoteNumerics();
}

void GenerationRun::OnDegraded(int n_tokens) {
  absl::MutexLock lock(&mu_);
  n_degraded_tokens_ += n_tokens;
}

void GenerationRun::OnTrace(int index, const TraceChunk& chunk) {
  const std::vector<std::string> shard_names = context_.cluster->ShardNames();
  Aftermath after;
  {
    absl::MutexLock lock(&mu_);
    if (events_.ended()) return;
    const int n_prompt = static_cast<int>(prompt_info_.n_tokens());
    // A token's routes come with the token they lead to, so those of the last resumed one are new.
    const int n_resumed = request_.resume_token_ids_size();
    const int first_output = n_prompt + std::max(0, n_resumed - 1);
    routing_.Add(index, chunk, n_prompt, first_output, shard_names);
    bool follows = candidates_[index].transcript.AddTrace(chunk, first_output, shard_names);
    if (index == 0 && chunk.first_position < n_prompt && !events_.opened()) {
      follows = follows &&
                AppendTrace(chunk, 0, n_prompt, shard_names, prompt_info_.mutable_routing_trace());
    }
    if (!follows) {
      End(absl::InternalError(
              absl::StrCat("the routing trace has a gap before position ", chunk.first_position)),
          &after);
    }
  }
  Settle(std::move(after));
}

void GenerationRun::OnPromptScores(int first_position, const std::vector<Sampled>& scores) {
  absl::MutexLock lock(&mu_);
  if (prompt_logprobs_.has_value() && !events_.opened()) {
    prompt_logprobs_->Add(first_position, scores);
  }
}

bool GenerationRun::OnToken(int index, const Sampled& token) {
  Aftermath after;
  bool go_on = false;
  {
    absl::MutexLock lock(&mu_);
    if (events_.ended()) return false;
    if (index == 0 && !events_.opened()) Open();
    Candidate& candidate = candidates_[index];
    NoteTokenTime(&candidate, &after);
    NoteNumerics();
    bool stopped = false;
    Push(candidate.transcript.AddToken(token, &stopped), &after);
    go_on = !stopped && !events_.ended();
    ClaimWake(&after);
  }
  Settle(std::move(after));
  return go_on;
}

void GenerationRun::OnEnd(int index, const GenerationEnd& end) {
  Aftermath after;
  {
    absl::MutexLock lock(&mu_);
    if (events_.ended()) return;
    if (end.cause == StopCause::kError || end.cause == StopCause::kCancelled) {
      End(OutcomeOf(end), &after);
    } else {
      if (index == 0 && !events_.opened()) Open();
      FinishCandidate(index, resumed_end_.value_or(end.cause), end.stop_token, &after);
    }
    ClaimWake(&after);
  }
  Settle(std::move(after));
}

void GenerationRun::Open() {
  Event event;
  auto* started = event.mutable_started();
  started->set_request_id(lease_->id());
  started->set_seed(config_.seed());
  if (prompt_logprobs_.has_value()) prompt_logprobs_->MoveTo(prompt_info_.mutable_logprobs());
  const uint32_t n_tokens = prompt_info_.n_tokens();
  *started->mutable_prompt() = std::exchange(prompt_info_, {});
  prompt_info_.set_n_tokens(n_tokens);
  events_.Open(std::move(event));
}

void GenerationRun::Push(CandidateTranscript::Delta delta, Aftermath* after) {
  Event event;
  *event.mutable_delta() = std::move(delta);
  if (events_.Push(std::move(event))) return;
  End(absl::ResourceExhaustedError(absl::StrCat("the stream is read too slowly: more than ",
                                                context_.options.max_unread_bytes,
                                                " bytes are waiting for its reader")),
      after);
}

void GenerationRun::NoteNumerics() {
  mixed_numerics_ = mixed_numerics_ || context_.cluster->mixed_numerics();
}

void GenerationRun::NoteTokenTime(Candidate* candidate, Aftermath* after) {
  const absl::Time now = context_.clock();
  if (candidate->last_token != absl::InfinitePast()) {
    after->itl = now - candidate->last_token;
  } else if (timings_.first_token == absl::InfinitePast()) {
    after->ttft = now - arrival_;
    timings_.first_token = now;
  }
  candidate->last_token = timings_.last_token = now;
}

void GenerationRun::FinishCandidate(int index, StopCause cause, int32_t stop_token,
                                    Aftermath* after) {
  Candidate& candidate = candidates_[index];
  if (candidate.finished) return;
  candidate.finished = true;
  if (auto rest = candidate.transcript.Flush()) Push(*std::move(rest), after);
  Event event;
  *event.mutable_finish() = candidate.transcript.TakeFinish(cause, stop_token);
  candidate.reason = event.finish().reason();
  events_.Push(std::move(event));
  if (!std::all_of(candidates_.begin(), candidates_.end(),
                   [](const Candidate& each) { return each.finished; })) {
    return;
  }
  Event last;
  *last.mutable_summary() = MakeSummary();
  events_.Push(std::move(last));
  End(absl::OkStatus(), after);
}

// ---- Ends.

void GenerationRun::Fail(absl::Status status) {
  Aftermath after;
  {
    absl::MutexLock lock(&mu_);
    End(std::move(status), &after);
  }
  Settle(std::move(after));
}

void GenerationRun::FinishEarly() {
  Aftermath after;
  {
    absl::MutexLock lock(&mu_);
    if (!events_.opened()) {
      End(absl::CancelledError("cancelled by an administrator before it produced anything"),
          &after);
    }
    for (size_t i = 0; i < candidates_.size() && !events_.ended(); ++i) {
      FinishCandidate(static_cast<int>(i), StopCause::kCancelled, -1, &after);
    }
    ClaimWake(&after);
  }
  Settle(std::move(after));
}

void GenerationRun::Cancel() {
  Aftermath after;
  std::unique_ptr<LiveRequests::Lease> lease;
  {
    absl::MutexLock lock(&mu_);
    wake_ = nullptr;
    End(CallerLeft(context_.clock(), deadline_), &after);
    lease = std::move(lease_);
  }
  Settle(std::move(after));
}

EventBuffer::Taken GenerationRun::Take(Event* event, absl::Status* status) {
  std::unique_ptr<LiveRequests::Lease> lease;
  absl::MutexLock lock(&mu_);
  const EventBuffer::Taken taken = events_.Take(event, status);
  // Before the caller can know that it ended, so that it may use the id again at once.
  if (taken == EventBuffer::Taken::kEnd) lease = std::move(lease_);
  return taken;
}

void GenerationRun::End(absl::Status status, Aftermath* after) {
  if (events_.ended()) return;
  after->report = MakeReport(status);
  // Before the caller can know that it ended, so that it may ask for it at once.
  if (!after->report->request_id.empty()) context_.history->Add(MakeTrace(*after->report));
  // The prompt counts from when the scheduler had it: its work may have begun, and may be over
  // before the handle is here.
  const bool submitted = !handles_.empty() || timings_.first_step != absl::InfinitePast();
  hold_.Settle(submitted ? after->report->n_prompt_tokens + after->report->n_output_tokens : 0);
  events_.End(std::move(status));
  after->dropped = std::exchange(handles_, {});
  ClaimWake(after);
}

void GenerationRun::ClaimWake(Aftermath* after) {
  if (events_.ClaimWake()) after->wake = wake_;
}

void GenerationRun::Settle(Aftermath after) {
  after.dropped.clear();
  if (context_.observer != nullptr) {
    if (after.ttft.has_value()) context_.observer->OnFirstToken(*after.ttft);
    if (after.itl.has_value()) context_.observer->OnNextToken(*after.itl);
  }
  if (after.report.has_value()) ReportEnd(*after.report, context_.observer);
  if (after.wake) after.wake();
}

inference::v1::Usage GenerationRun::MakeUsage(int n_output_tokens) const {
  inference::v1::Usage usage;
  usage.set_prompt_tokens(prompt_info_.n_tokens());
  usage.set_cached_tokens(n_cached_tokens_);
  usage.set_output_tokens(n_output_tokens);
  return usage;
}

inference::v1::Summary GenerationRun::MakeSummary() const {
  inference::v1::Summary summary;
  int n_output = request_.resume_token_ids_size();
  for (const Candidate& candidate : candidates_) n_output += candidate.transcript.n_new_tokens();
  *summary.mutable_usage() = MakeUsage(n_output);
  *summary.mutable_effective_config() = config_;
  if (request_.request().output().timings()) *summary.mutable_timings() = ToProto(timings_);
  summary.set_topology_version(context_.cluster->topology_version());
  summary.set_model(context_.model.name);
  summary.set_model_fingerprint(context_.model.fingerprint);
  summary.set_mixed_numerics(mixed_numerics_ || context_.cluster->mixed_numerics());
  summary.set_degraded_tokens(n_degraded_tokens_);
  return summary;
}

RequestReport GenerationRun::MakeReport(const absl::Status& status) const {
  RequestReport report;
  if (lease_ != nullptr) report.request_id = lease_->id();
  report.refused_id = refused_id_;
  report.caller = origin_.caller_name();
  report.traceparent = origin_.traceparent;
  report.kind = RequestKind::kGenerate;
  report.status = status;
  report.n_prompt_tokens = static_cast<int>(prompt_info_.n_tokens());
  report.n_cached_tokens = n_cached_tokens_;
  for (const Candidate& candidate : candidates_) {
    report.n_output_tokens += candidate.transcript.n_new_tokens();
  }
  const bool stepped = timings_.first_step != absl::InfinitePast();
  if (stepped) report.queue = timings_.first_step - arrival_;
  report.n_degraded_tokens = static_cast<int>(n_degraded_tokens_);
  report.n_truncated_tokens = n_truncated_tokens_;
  report.mixed_numerics = mixed_numerics_ || (stepped && context_.cluster->mixed_numerics());
  report.topology_version = context_.cluster->topology_version();
  report.end_to_end = context_.clock() - arrival_;
  return report;
}

cluster::v1::GenerationTrace GenerationRun::MakeTrace(const RequestReport& report) {
  cluster::v1::GenerationTrace trace;
  trace.set_request_id(report.request_id);
  trace.set_caller(report.caller);
  *trace.mutable_arrival() = ToProto(arrival_);
  *trace.mutable_end_to_end() = ToProto(report.end_to_end);
  trace.mutable_status()->set_code(static_cast<int>(report.status.code()));
  trace.mutable_status()->set_message(ReasonToKeep(report.status).substr(0, 1024));
  *trace.mutable_usage() = MakeUsage(report.n_output_tokens);
  *trace.mutable_timings() = ToProto(timings_);
  trace.set_topology_version(context_.cluster->topology_version());
  trace.set_degraded_tokens(n_degraded_tokens_);
  for (const Candidate& candidate : candidates_) {
    auto* each = trace.add_candidates();
    each->set_output_tokens(candidate.transcript.n_new_tokens());
    each->set_finish_reason(candidate.reason);
  }
  routing_.MoveTo(&trace);
  return trace;
}

}  // namespace gatefold

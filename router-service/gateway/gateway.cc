#include "router-service/gateway/gateway.h"

#include <algorithm>
#include <utility>

#include "gatefold/base/check.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "router-service/gateway/generation_collector.h"
#include "router-service/gateway/generation_run.h"
#include "router-service/gateway/prompt_encoder.h"
#include "router-service/gateway/request_size.h"
#include "router-service/gateway/score_run.h"

namespace gatefold {
namespace {

// Prepared in some tens of milliseconds at most.
constexpr size_t kLongRequestBytes = size_t{64} << 10;

GatewayContext MakeContext(const GatewayOptions& options, ModelInfo model,
                           const Gateway::Dependencies& deps) {
  GatewayContext context;
  context.options = options;
  context.max_sequence_tokens =
      std::min(model.max_sequence_tokens, deps.service->max_sequence_tokens());
  context.model = std::move(model);
  context.model.max_sequence_tokens = context.max_sequence_tokens;
  context.model.has_chat_template = deps.codec != nullptr && deps.codec->has_chat_template();
  context.codec = deps.codec.get();
  context.service = deps.service;
  context.cluster = deps.cluster;
  context.observer = deps.observer;
  context.clock = deps.clock;
  return context;
}

// Takes all events of a generation as they come, and answers after the last.
class WholeGeneration final : public std::enable_shared_from_this<WholeGeneration> {
 public:
  using Response = inference::v1::GenerateTextResponse;
  using Done = std::function<void(absl::StatusOr<Response>)>;

  WholeGeneration(int64_t max_response_bytes, Done done)
      : collector_(max_response_bytes), done_(std::move(done)) {}

  void Start(std::unique_ptr<Generation> generation) {
    {
      absl::MutexLock lock(&mu_);
      generation_ = std::move(generation);
    }
    Drain();
  }

  void Drain() {
    absl::StatusOr<Response> answer = Response();
    std::unique_ptr<Generation> over;
    Done done;
    {
      absl::MutexLock lock(&mu_);
      if (generation_ == nullptr || !TakeAll(&answer)) return;
      over = std::move(generation_);
      done = std::move(done_);
    }
    over.reset();
    done(std::move(answer));
  }

  void Cancel() {
    std::unique_ptr<Generation> over;
    absl::MutexLock lock(&mu_);
    over = std::move(generation_);  // goes after the lock
  }

 private:
  // False: there is more to come.
  bool TakeAll(absl::StatusOr<Response>* answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    while (true) {
      Generation::Event event;
      absl::Status status;
      switch (generation_->Take(&event, &status)) {
        case Generation::Taken::kNothingYet:
          return false;
        case Generation::Taken::kEvent:
          status = collector_.Add(std::move(event));
          if (status.ok()) break;
          *answer = std::move(status);
          return true;
        case Generation::Taken::kEnd:
          if (status.ok()) {
            *answer = collector_.Take();
          } else {
            *answer = std::move(status);
          }
          return true;
      }
    }
  }

  absl::Mutex mu_;
  std::unique_ptr<Generation> generation_ ABSL_GUARDED_BY(mu_);
  GenerationCollector collector_ ABSL_GUARDED_BY(mu_);
  Done done_ ABSL_GUARDED_BY(mu_);
};

// Cancels when destroyed.
template <typename Run>
class CancelOnDestruction final : public PendingCall {
 public:
  explicit CancelOnDestruction(std::shared_ptr<Run> run) : run_(std::move(run)) {}
  ~CancelOnDestruction() override { run_->Cancel(); }

 private:
  const std::shared_ptr<Run> run_;
};

}  // namespace

Generation::~Generation() { run_->Cancel(); }

Generation::Taken Generation::Take(Event* event, absl::Status* status) {
  return run_->Take(event, status);
}

absl::StatusOr<std::unique_ptr<Gateway>> Gateway::Create(const GatewayOptions& options,
                                                         ModelInfo model, Dependencies deps) {
  GF_RETURN_IF_ERROR(options.Validate());
  GF_CHECK(deps.service != nullptr && deps.cluster != nullptr && deps.clock != nullptr);
  return std::unique_ptr<Gateway>(new Gateway(options, std::move(model), std::move(deps)));
}

Gateway::Gateway(const GatewayOptions& options, ModelInfo model, Dependencies deps)
    : codec_(deps.codec),
      live_(options.max_live_requests),
      history_(options.max_kept_generations, options.max_kept_bytes),
      context_(MakeContext(options, std::move(model), deps)),
      checker_(&context_.model, &context_.options.limits,
               {codec_ != nullptr, codec_ != nullptr && codec_->has_chat_template()}),
      pool_(options.n_preparation_threads, options.max_preparing) {
  context_.checker = &checker_;
  context_.live = &live_;
  context_.history = &history_;
}

absl::StatusOr<cluster::v1::GenerationTrace> Gateway::TraceOf(absl::string_view request_id,
                                                              const Caller* caller) const {
  const std::optional<std::string> whose =
      caller == nullptr ? std::nullopt : std::make_optional(caller->name());
  GF_RETURN_IF_ERROR(checker_.CheckRequestId(std::string(request_id)));
  // Before the history, or one that ends just now would be in neither. Whether another caller's
  // request runs is not this one's to know.
  const bool runs = live_.Contains(request_id, whose);
  if (auto trace = history_.Find(request_id, whose)) return *std::move(trace);
  if (runs) {
    return absl::FailedPreconditionError("it is still running: ask again once it has ended");
  }
  return absl::NotFoundError(
      "no generation with this request_id ended at this router lately; another router may know it");
}

int64_t Gateway::max_request_bytes() const {
  return MaxRequestBytes(context_.options.limits, context_.model);
}

int64_t Gateway::max_request_parts() const { return MaxRequestParts(context_.options.limits); }

absl::Status Gateway::Post(size_t request_bytes, std::function<void()> task) {
  const auto length = request_bytes > kLongRequestBytes ? PreparationPool::Length::kLong
                                                        : PreparationPool::Length::kShort;
  if (pool_.TryPost(length, std::move(task))) return absl::OkStatus();
  return QueueFull(context_.options.retry_delay);
}

absl::Time Gateway::EndBy(absl::Time deadline) const {
  return std::min(deadline, context_.clock() + context_.options.max_request_time);
}

std::unique_ptr<Generation> Gateway::Generate(inference::v1::StreamGenerateTextRequest request,
                                              absl::Time deadline, std::function<void()> wake,
                                              Origin origin) {
  const size_t bytes = request.ByteSizeLong();
  auto run = std::make_shared<GenerationRun>(&context_, std::move(request), EndBy(deadline),
                                             std::move(wake), std::move(origin));
  if (run->Accept()) {
    absl::Status posted = Post(bytes, [run] { run->Prepare(); });
    if (!posted.ok()) run->Fail(std::move(posted));
  }
  return std::make_unique<Generation>(std::move(run));
}

std::unique_ptr<PendingCall> Gateway::GenerateWhole(
    inference::v1::GenerateTextRequest request, absl::Time deadline,
    std::function<void(absl::StatusOr<inference::v1::GenerateTextResponse>)> done, Origin origin) {
  auto whole = std::make_shared<WholeGeneration>(context_.options.limits.max_response_bytes,
                                                 std::move(done));
  inference::v1::StreamGenerateTextRequest streaming;
  *streaming.mutable_request() = std::move(request);
  std::weak_ptr<WholeGeneration> weak = whole;
  whole->Start(Generate(
      std::move(streaming), deadline,
      [weak] {
        if (auto whole = weak.lock()) whole->Drain();
      },
      std::move(origin)));
  return std::make_unique<CancelOnDestruction<WholeGeneration>>(std::move(whole));
}

std::unique_ptr<PendingCall> Gateway::Score(
    inference::v1::ScoreTextRequest request, absl::Time deadline,
    std::function<void(absl::StatusOr<inference::v1::ScoreTextResponse>)> done, Origin origin) {
  const size_t bytes = request.ByteSizeLong();
  auto run = std::make_shared<ScoreRun>(&context_, std::move(request), EndBy(deadline),
                                        std::move(done), std::move(origin));
  if (run->Accept()) {
    absl::Status posted = Post(bytes, [run] { run->Prepare(); });
    if (!posted.ok()) run->Fail(std::move(posted));
  }
  return std::make_unique<CancelOnDestruction<ScoreRun>>(std::move(run));
}

template <typename Request, typename Response>
void Gateway::Compute(Request request, std::function<void(absl::StatusOr<Response>)> done,
                      absl::StatusOr<Response> (Gateway::*compute)(const Request&) const) {
  if (absl::Status status = checker_.Check(request); !status.ok()) return done(std::move(status));
  const size_t bytes = request.ByteSizeLong();
  absl::Status posted = Post(bytes, [this, request = std::move(request), done, compute] {
    done((this->*compute)(request));
  });
  if (!posted.ok()) done(std::move(posted));
}

void Gateway::CountTokens(
    inference::v1::CountTokensRequest request,
    std::function<void(absl::StatusOr<inference::v1::CountTokensResponse>)> done) {
  Compute(std::move(request), std::move(done), &Gateway::CountNow);
}

void Gateway::Tokenize(inference::v1::TokenizeRequest request,
                       std::function<void(absl::StatusOr<inference::v1::TokenizeResponse>)> done) {
  Compute(std::move(request), std::move(done), &Gateway::TokenizeNow);
}

void Gateway::Detokenize(
    inference::v1::DetokenizeRequest request,
    std::function<void(absl::StatusOr<inference::v1::DetokenizeResponse>)> done) {
  Compute(std::move(request), std::move(done), &Gateway::DetokenizeNow);
}

absl::StatusOr<inference::v1::CountTokensResponse> Gateway::CountNow(
    const inference::v1::CountTokensRequest& request) const {
  GF_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      EncodePrompt(request.prompt(), context_.codec));
  inference::v1::CountTokensResponse response;
  response.set_n_tokens(ids.size());
  return response;
}

absl::StatusOr<inference::v1::TokenizeResponse> Gateway::TokenizeNow(
    const inference::v1::TokenizeRequest& request) const {
  GF_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      EncodePrompt(request.prompt(), context_.codec));
  inference::v1::TokenizeResponse response;
  response.mutable_token_ids()->Add(ids.begin(), ids.end());
  for (const int32_t id : ids) response.add_tokens(context_.codec->TokenBytes(id));
  return response;
}

absl::StatusOr<inference::v1::DetokenizeResponse> Gateway::DetokenizeNow(
    const inference::v1::DetokenizeRequest& request) const {
  inference::v1::DetokenizeResponse response;
  response.set_text(context_.codec->Decode({request.token_ids().begin(), request.token_ids().end()},
                                           request.skip_special_tokens()));
  return response;
}

}  // namespace gatefold

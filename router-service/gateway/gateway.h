#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "router-service/gateway/event_buffer.h"
#include "router-service/gateway/gateway_context.h"
#include "router-service/gateway/origin.h"
#include "router-service/gateway/preparation_pool.h"

namespace gatefold {

class GenerationRun;
class ScoreRun;

// The events of one request, taken one by one. Cancels the request when destroyed.
// Threads: one at a time.
class Generation {
 public:
  using Event = EventBuffer::Event;
  using Taken = EventBuffer::Taken;

  explicit Generation(std::shared_ptr<GenerationRun> run) : run_(std::move(run)) {}
  ~Generation();

  // The next event; or kEnd with the request's status; or kNothingYet, then `wake` will be called.
  Taken Take(Event* event, absl::Status* status);

 private:
  const std::shared_ptr<GenerationRun> run_;
};

// A request with one answer. Cancels it when destroyed; `done` is not called after that, but for a
// call already under way.
class PendingCall {
 public:
  virtual ~PendingCall() = default;
};

// The public API without gRPC: text and its checks on one side, the scheduler's token ids on the
// other. The gRPC and HTTP servers and the command line all serve from here.
// Requests are never blocked on: callbacks come from the preparation pool and from the scheduler's
// threads, with no lock held; they must not block. All of a gateway's requests end before it does,
// and it before its scheduler. Threads: safe.
class Gateway {
 public:
  struct Dependencies {
    std::shared_ptr<const TextCodec> codec;  // null: the model has no tokenizer
    GenerationService* service = nullptr;
    const ClusterView* cluster = nullptr;
    GatewayObserver* observer = nullptr;  // may be null
    std::function<absl::Time()> clock = absl::Now;
  };

  // Errors: kInvalidArgument for options.
  static absl::StatusOr<std::unique_ptr<Gateway>> Create(const GatewayOptions& options,
                                                         ModelInfo model, Dependencies deps);

  // The first Take() tells what a refused request did wrong. `wake`: see Generation::Take.
  std::unique_ptr<Generation> Generate(inference::v1::StreamGenerateTextRequest request,
                                       absl::Time deadline, std::function<void()> wake,
                                       Origin origin = {});

  // All events folded into one answer. `done` may be called before this returns.
  std::unique_ptr<PendingCall> GenerateWhole(
      inference::v1::GenerateTextRequest request, absl::Time deadline,
      std::function<void(absl::StatusOr<inference::v1::GenerateTextResponse>)> done,
      Origin origin = {});

  std::unique_ptr<PendingCall> Score(
      inference::v1::ScoreTextRequest request, absl::Time deadline,
      std::function<void(absl::StatusOr<inference::v1::ScoreTextResponse>)> done,
      Origin origin = {});

  // These run on the preparation pool and are too short to be cancelled.
  void CountTokens(inference::v1::CountTokensRequest request,
                   std::function<void(absl::StatusOr<inference::v1::CountTokensResponse>)> done);
  void Tokenize(inference::v1::TokenizeRequest request,
                std::function<void(absl::StatusOr<inference::v1::TokenizeResponse>)> done);
  void Detokenize(inference::v1::DetokenizeRequest request,
                  std::function<void(absl::StatusOr<inference::v1::DetokenizeResponse>)> done);

  // Ends a request in good order, for administrators. False: no such request lives.
  bool CancelRequest(absl::string_view request_id) { return live_.Cancel(request_id); }

  // How a generation went. `caller`: whose it must be; null: anybody's.
  // Errors: kNotFound, kFailedPrecondition (still running).
  absl::StatusOr<cluster::v1::GenerationTrace> TraceOf(absl::string_view request_id,
                                                       const Caller* caller) const;

  // kNotFound (MODEL_NOT_FOUND) unless the name is the model's, or empty.
  absl::Status CheckModel(absl::string_view name) const { return checker_.CheckModel(name); }
  const ModelInfo& model() const { return context_.model; }
  const ClusterView& cluster() const { return *context_.cluster; }
  // A request message with more than this is over some limit anyway.
  int64_t max_request_bytes() const;
  int64_t max_request_parts() const;
  int n_live_requests() const { return live_.size(); }

 private:
  Gateway(const GatewayOptions& options, ModelInfo model, Dependencies deps);

  absl::Time EndBy(absl::Time deadline) const;
  // QueueFull if the pool takes no more. request_bytes: of what the task has to do with.
  absl::Status Post(size_t request_bytes, std::function<void()> task);
  template <typename Request, typename Response>
  void Compute(Request request, std::function<void(absl::StatusOr<Response>)> done,
               absl::StatusOr<Response> (Gateway::*compute)(const Request&) const);
  absl::StatusOr<inference::v1::CountTokensResponse> CountNow(
      const inference::v1::CountTokensRequest& request) const;
  absl::StatusOr<inference::v1::TokenizeResponse> TokenizeNow(
      const inference::v1::TokenizeRequest& request) const;
  absl::StatusOr<inference::v1::DetokenizeResponse> DetokenizeNow(
      const inference::v1::DetokenizeRequest& request) const;

  const std::shared_ptr<const TextCodec> codec_;
  LiveRequests live_;
  GenerationHistory history_;
  GatewayContext context_;
  const RequestChecker checker_;
  PreparationPool pool_;  // last, so that its tasks end first
};

}  // namespace gatefold

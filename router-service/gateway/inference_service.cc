#include <algorithm>
#include <memory>
#include <utility>

#include "gatefold/base/traceparent.h"
#include "gatefold/rpc/async_service.h"
#include "router-service/gateway/gateway_service.h"
#include "router-service/gateway/stream_pump.h"

namespace gatefold {
namespace {

using inference::v1::CountTokensRequest;
using inference::v1::CountTokensResponse;
using inference::v1::DetokenizeRequest;
using inference::v1::DetokenizeResponse;
using inference::v1::GenerateTextRequest;
using inference::v1::GenerateTextResponse;
using inference::v1::ScoreTextRequest;
using inference::v1::ScoreTextResponse;
using inference::v1::StreamGenerateTextRequest;
using inference::v1::StreamGenerateTextResponse;
using inference::v1::TokenizeRequest;
using inference::v1::TokenizeResponse;

constexpr char kService[] = "gatefold.inference.v1.InferenceService";

// Keeps `owned` until the call is over, however it ends; letting go of it is what cancels it.
template <typename Owned>
void KeepUntilOver(const std::shared_ptr<CallContext>& call, std::shared_ptr<Owned> owned) {
  call->OnCancel([owned = std::move(owned)]() mutable { owned.reset(); });
}

// Its caller is null where no keys are asked for.
Origin OriginOf(const CallContext& call) {
  return {std::dynamic_pointer_cast<Caller>(call.principal()),
          std::string(ValidTraceparent(call.Metadata("traceparent")))};
}

void StreamGenerate(Gateway* gateway, const std::shared_ptr<CallContext>& call,
                    StreamGenerateTextRequest&& request,
                    std::shared_ptr<StreamPump::Stream> stream) {
  auto pump = std::make_shared<StreamPump>(std::move(stream));
  pump->Start(gateway->Generate(
      std::move(request), call->deadline(),
      [weak = std::weak_ptr<StreamPump>(pump)] {
        if (auto pump = weak.lock()) pump->Pump();
      },
      OriginOf(*call)));
  KeepUntilOver(call, std::move(pump));
}

// A method of the gateway that answers once and holds nothing that a leaving caller should free.
template <typename Request, typename Response>
void AddShort(RpcServer* server, const char* method, const MethodOptions& options, Gateway* gateway,
              void (Gateway::*run)(Request, std::function<void(absl::StatusOr<Response>)>)) {
  AddUnary<Request, Response>(
      server, kService, method,
      [gateway, run](std::shared_ptr<CallContext> /*call*/, Request&& request,
                     Respond<Response> respond) { (gateway->*run)(std::move(request), respond); },
      options);
}

// One that does.
template <typename Request, typename Response>
void AddLong(RpcServer* server, const char* method, const MethodOptions& options, Gateway* gateway,
             std::unique_ptr<PendingCall> (Gateway::*run)(
                 Request, absl::Time, std::function<void(absl::StatusOr<Response>)>, Origin)) {
  AddUnary<Request, Response>(
      server, kService, method,
      [gateway, run](std::shared_ptr<CallContext> call, Request&& request,
                     Respond<Response> respond) {
        std::shared_ptr<PendingCall> pending =
            (gateway->*run)(std::move(request), call->deadline(), respond, OriginOf(*call));
        KeepUntilOver(call, std::move(pending));
      },
      options);
}

}  // namespace

void AddInferenceService(RpcServer* server, Gateway* gateway) {
  MethodOptions options;
  options.max_request_bytes = gateway->max_request_bytes();
  options.max_request_parts = std::max<size_t>(kDefaultRequestParts, gateway->max_request_parts());
  options.max_queued_messages = 4;  // more wait in the generation and merge there
  AddServerStreaming<StreamGenerateTextRequest, StreamGenerateTextResponse>(
      server, kService, "StreamGenerateText",
      [gateway](std::shared_ptr<CallContext> call, StreamGenerateTextRequest&& request,
                std::shared_ptr<StreamPump::Stream> stream) {
        StreamGenerate(gateway, call, std::move(request), std::move(stream));
      },
      options);
  AddLong<GenerateTextRequest, GenerateTextResponse>(server, "GenerateText", options, gateway,
                                                     &Gateway::GenerateWhole);
  AddLong<ScoreTextRequest, ScoreTextResponse>(server, "ScoreText", options, gateway,
                                               &Gateway::Score);
  AddShort<CountTokensRequest, CountTokensResponse>(server, "CountTokens", options, gateway,
                                                    &Gateway::CountTokens);
  AddShort<TokenizeRequest, TokenizeResponse>(server, "Tokenize", options, gateway,
                                              &Gateway::Tokenize);
  AddShort<DetokenizeRequest, DetokenizeResponse>(server, "Detokenize", options, gateway,
                                                  &Gateway::Detokenize);
}

}  // namespace gatefold

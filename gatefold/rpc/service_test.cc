// Unary and server-streaming methods, spoken to by generated clients.

#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/server_builder.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gatefold/base/errors.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "gatefold/inference/v1/model.grpc.pb.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using inference::v1::GetModelRequest;
using inference::v1::GetModelResponse;
using inference::v1::InferenceService;
using inference::v1::ListModelsResponse;
using inference::v1::ModelService;
using inference::v1::StreamGenerateTextRequest;
using inference::v1::StreamGenerateTextResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kModelService[] = "gatefold.inference.v1.ModelService";
constexpr char kInferenceService[] = "gatefold.inference.v1.InferenceService";

using ModelHandler = UnaryHandler<GetModelRequest, GetModelResponse>;
using TextStream = ServerStream<StreamGenerateTextResponse>;
using TextHandler = ServerStreamingHandler<StreamGenerateTextRequest, StreamGenerateTextResponse>;

class Service : public ::testing::Test {
 protected:
  void Start(ModelHandler get_model, TextHandler stream_text = {}, ServerOptions options = {},
             const MethodOptions& method_options = {}) {
    if (options.addresses.empty()) options.addresses = {"127.0.0.1:0"};
    server_ = std::make_unique<RpcServer>(options);
    if (get_model) {
      AddUnary<GetModelRequest, GetModelResponse>(server_.get(), kModelService, "GetModel",
                                                  std::move(get_model), method_options);
    }
    if (stream_text) {
      AddServerStreaming<StreamGenerateTextRequest, StreamGenerateTextResponse>(
          server_.get(), kInferenceService, "StreamGenerateText", std::move(stream_text),
          method_options);
    }
    const absl::Status started = server_->Start();
    ASSERT_TRUE(started.ok()) << started;
    channel_ = *MakeChannel(server_->address(), ChannelKind::kDecode, ChannelOptions());
    models_ = ModelService::NewStub(channel_);
    inference_ = InferenceService::NewStub(channel_);
  }

  absl::Status GetModel(const std::string& name, GetModelResponse* response = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    GetModelRequest request;
    request.set_name(name);
    GetModelResponse ignored;
    return FromGrpcStatus(
        models_->GetModel(&context, request, response == nullptr ? &ignored : response));
  }

  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<ModelService::Stub> models_;
  std::unique_ptr<InferenceService::Stub> inference_;
};

void Echo(std::shared_ptr<CallContext>, const GetModelRequest& request,
          Respond<GetModelResponse> respond) {
  GetModelResponse response;
  response.mutable_model()->set_name(request.name());
  respond(response);
}

TEST_F(Service, AnswersUnaryCalls) {
  Start(Echo);
  for (int i = 0; i < 20; ++i) {
    GetModelResponse response;
    const absl::Status status = GetModel(absl::StrCat("model ", i), &response);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(response.model().name(), absl::StrCat("model ", i));
  }
}

TEST_F(Service, AnswersLaterFromAnotherThread) {
  std::vector<std::thread> threads;
  Start([&](std::shared_ptr<CallContext>, const GetModelRequest& request,
            Respond<GetModelResponse> respond) {
    threads.emplace_back([respond, name = request.name()] {
      GetModelResponse response;
      response.mutable_model()->set_name(name);
      respond(response);
      respond(absl::InternalError("a second answer does nothing"));
    });
  });
  for (int i = 0; i < 20; ++i) {
    GetModelResponse response;
    ASSERT_TRUE(GetModel("late", &response).ok());
    EXPECT_EQ(response.model().name(), "late");
  }
  server_->Shutdown(absl::Seconds(5));
  for (std::thread& thread : threads) thread.join();
}

TEST_F(Service, SendsErrorsWithDetails) {
  Start([](std::shared_ptr<CallContext>, const GetModelRequest& request,
           Respond<GetModelResponse> respond) { respond(ModelNotFound(request.name())); });
  const absl::Status status = GetModel("gpt");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(status), "MODEL_NOT_FOUND");
  EXPECT_THAT(GetErrorDetails(status).metadata, ElementsAre(::testing::Pair("model", "gpt")));
}

TEST_F(Service, TellsTheCallerWhenAHandlerForgetsIt) {
  Start([](std::shared_ptr<CallContext>, const GetModelRequest&, Respond<GetModelResponse>) {},
        [](std::shared_ptr<CallContext>, const StreamGenerateTextRequest&,
           std::shared_ptr<TextStream> stream) { stream->Write({}); });
  EXPECT_EQ(GetModel("x").code(), absl::StatusCode::kInternal);
  grpc::ClientContext context;
  const auto reader = inference_->StreamGenerateText(&context, {});
  StreamGenerateTextResponse response;
  EXPECT_TRUE(reader->Read(&response));
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::INTERNAL);
}

TEST_F(Service, RefusesUnknownMethods) {
  Start(Echo);
  grpc::ClientContext context;
  ListModelsResponse response;
  EXPECT_EQ(models_->ListModels(&context, {}, &response).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

struct TestPrincipal final : Principal {
  const std::string& name() const override { return text; }
  const std::string text = "alice";
};

TEST_F(Service, AsksWhoCallsBeforeAnythingElse) {
  ServerOptions options;
  options.authorize = [](CallContext* call) {
    if (call->Metadata("authorization").empty()) return ApiKeyMissing();
    call->set_principal(std::make_shared<TestPrincipal>());
    return absl::OkStatus();
  };
  Start(
      [](std::shared_ptr<CallContext> call, const GetModelRequest&,
         Respond<GetModelResponse> respond) {
        GetModelResponse response;
        response.mutable_model()->set_name(call->principal()->name());
        respond(response);
      },
      {}, options);
  const absl::Status refused = GetModel("x");
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ReasonOf(refused), "API_KEY_MISSING");
  grpc::ClientContext stranger;
  ListModelsResponse none;
  EXPECT_EQ(models_->ListModels(&stranger, {}, &none).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);  // not even which methods there are
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer x");
  GetModelResponse response;
  ASSERT_TRUE(models_->GetModel(&context, {}, &response).ok());
  EXPECT_EQ(response.model().name(), "alice");
}

TEST_F(Service, RefusesRequestsPastTheLimit) {
  MethodOptions options;
  options.max_request_bytes = 1000;
  Start(Echo, {}, {}, options);
  EXPECT_TRUE(GetModel(std::string(900, 'x')).ok());
  const absl::Status status = GetModel(std::string(1000, 'x'));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("1000"));
}

TEST_F(Service, RefusesRequestsOfTooManyPartsBeforeTheyAreParsed) {
  MethodOptions options;
  options.max_request_parts = 1000;
  int n_called = 0;
  Start(
      [&](std::shared_ptr<CallContext> /*call*/, const GetModelRequest& /*request*/,
          Respond<GetModelResponse> respond) {
        ++n_called;
        respond(GetModelResponse());
      },
      {}, {}, options);
  const auto get_model = [&](int n_parts) {
    std::string bytes;
    for (int i = 0; i < n_parts; ++i) bytes += "\x7a\x01x";  // a field that the type does not have
    const grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::ClientContext context;
    const grpc::internal::RpcMethod method("/gatefold.inference.v1.ModelService/GetModel",
                                           grpc::internal::RpcMethod::NORMAL_RPC);
    return grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
        channel_.get(), method, &context, request, &response);
  };
  EXPECT_TRUE(get_model(1000).ok());
  EXPECT_EQ(n_called, 1);
  const grpc::Status status = get_model(1001);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("the limit is 1000,"));
  EXPECT_EQ(n_called, 1);
}

TEST_F(Service, AHandlerMayTakeTheRequestAway) {
  std::string kept;
  const char* before = nullptr;
  Start([&](std::shared_ptr<CallContext> /*call*/, GetModelRequest&& request,
            Respond<GetModelResponse> respond) {
    before = request.name().data();
    kept = std::move(*request.mutable_name());
    respond(GetModelResponse());
  });
  EXPECT_TRUE(GetModel(std::string(100, 'x')).ok());
  EXPECT_EQ(kept, std::string(100, 'x'));
  EXPECT_EQ(kept.data(), before);
}

TEST_F(Service, RefusesRequestsThatAreNoSuchMessage) {
  Start(Echo);
  const grpc::Slice slice("\x0a\x7fshort");  // field 1 claims 127 bytes
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  grpc::ClientContext context;
  const grpc::internal::RpcMethod method("/gatefold.inference.v1.ModelService/GetModel",
                                         grpc::internal::RpcMethod::NORMAL_RPC);
  const grpc::Status status = grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
      channel_.get(), method, &context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("GetModelRequest"));
}

TEST_F(Service, ShowsDeadlineAndMetadata) {
  absl::Time deadline;
  std::string traceparent, peer;
  Start([&](std::shared_ptr<CallContext> call, const GetModelRequest&,
            Respond<GetModelResponse> respond) {
    deadline = call->deadline();
    traceparent = std::string(call->Metadata("traceparent"));
    peer = call->peer();
    respond(GetModelResponse());
  });
  grpc::ClientContext context;
  const absl::Time wanted = absl::Now() + absl::Seconds(20);
  context.set_deadline(absl::ToChronoTime(wanted));
  context.AddMetadata("traceparent", "00-aa-bb-01");
  GetModelResponse response;
  ASSERT_TRUE(models_->GetModel(&context, {}, &response).ok());
  EXPECT_LT(absl::AbsDuration(deadline - wanted), absl::Seconds(1));
  EXPECT_EQ(traceparent, "00-aa-bb-01");
  EXPECT_THAT(peer, HasSubstr("127.0.0.1"));

  grpc::ClientContext patient;
  ASSERT_TRUE(models_->GetModel(&patient, {}, &response).ok());
  EXPECT_EQ(deadline, absl::InfiniteFuture());
}

TEST_F(Service, TellsHandlersThatTheClientIsGone) {
  absl::Notification called, cancelled;
  std::unique_ptr<Respond<GetModelResponse>> kept;
  std::shared_ptr<CallContext> kept_call;
  Start([&](std::shared_ptr<CallContext> call, const GetModelRequest&,
            Respond<GetModelResponse> respond) {
    kept = std::make_unique<Respond<GetModelResponse>>(respond);
    kept_call = call;
    call->OnCancel([&] { cancelled.Notify(); });
    called.Notify();
  });
  grpc::ClientContext context;
  std::thread client([&] {
    GetModelResponse response;
    EXPECT_EQ(models_->GetModel(&context, {}, &response).error_code(), grpc::CANCELLED);
  });
  called.WaitForNotification();
  EXPECT_FALSE(kept_call->cancelled());
  context.TryCancel();
  client.join();
  cancelled.WaitForNotification();
  EXPECT_TRUE(kept_call->cancelled());
  (*kept)(GetModelResponse());  // too late, and harmless
  bool ran = false;
  kept_call->OnCancel([&] { ran = true; });
  EXPECT_TRUE(ran);
  server_.reset();
  (*kept)(GetModelResponse());
}

TEST_F(Service, RefusesCallsPastTheLimit) {
  absl::Notification called;
  std::unique_ptr<Respond<GetModelResponse>> kept;
  ServerOptions options;
  options.max_calls = 1;
  Start(
      [&](std::shared_ptr<CallContext>, const GetModelRequest&, Respond<GetModelResponse> respond) {
        kept = std::make_unique<Respond<GetModelResponse>>(respond);
        called.Notify();
      },
      {}, options);
  std::thread client([&] { EXPECT_TRUE(GetModel("first").ok()); });
  called.WaitForNotification();
  // From another connection: on the same one HTTP/2's own limit makes the second wait.
  const auto other = ModelService::NewStub(
      *MakeChannel(server_->address(), ChannelKind::kDecode, ChannelOptions()));
  grpc::ClientContext context;
  GetModelResponse response;
  const absl::Status status = FromGrpcStatus(other->GetModel(&context, {}, &response));
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_GT(RetryDelayOf(status), absl::ZeroDuration());
  (*kept)(GetModelResponse());
  client.join();
}

StreamGenerateTextResponse Delta(int n) {
  StreamGenerateTextResponse response;
  response.mutable_delta()->set_n_tokens(n);
  return response;
}

TEST_F(Service, StreamsInOrderFromAnotherThread) {
  std::thread producer;
  Start({}, [&](std::shared_ptr<CallContext>, const StreamGenerateTextRequest&,
                std::shared_ptr<TextStream> stream) {
    producer = std::thread([stream] {
      for (int i = 0; i < 50; ++i) EXPECT_EQ(stream->Write(Delta(i)), StreamWrite::kQueued);
      stream->Finish(absl::OkStatus());
      EXPECT_EQ(stream->Write(Delta(99)), StreamWrite::kClosed);
    });
  });
  grpc::ClientContext context;
  const auto reader = inference_->StreamGenerateText(&context, {});
  StreamGenerateTextResponse response;
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(reader->Read(&response));
    EXPECT_EQ(response.delta().n_tokens(), i);
  }
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_TRUE(reader->Finish().ok());
  producer.join();
}

TEST_F(Service, SendsWhatIsQueuedBeforeAnError) {
  Start({}, [&](std::shared_ptr<CallContext>, const StreamGenerateTextRequest&,
                std::shared_ptr<TextStream> stream) {
    for (int i = 0; i < 3; ++i) stream->Write(Delta(i));
    stream->Finish(ExpertUnavailable(2, 5, absl::Seconds(1)));
  });
  grpc::ClientContext context;
  const auto reader = inference_->StreamGenerateText(&context, {});
  StreamGenerateTextResponse response;
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(reader->Read(&response));
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(ReasonOf(FromGrpcStatus(reader->Finish())), "EXPERT_UNAVAILABLE");
}

TEST_F(Service, PushesBackWhenTheClientDoesNotRead) {
  MethodOptions options;
  options.max_queued_messages = 4;
  absl::Notification full;
  int written = 0;  // by one thread after the other
  StreamGenerateTextResponse big = Delta(1);
  big.mutable_delta()->set_text(std::string(100000, 'x'));
  std::shared_ptr<TextStream> kept;
  constexpr int kTotal = 300;
  const auto produce = [&](TextStream* stream) {
    while (written < kTotal) {
      const StreamWrite result = stream->Write(big);
      if (result != StreamWrite::kQueued) return result;
      ++written;
    }
    stream->Finish(absl::OkStatus());
    return StreamWrite::kQueued;
  };
  Start(
      {},
      [&](std::shared_ptr<CallContext>, const StreamGenerateTextRequest&,
          std::shared_ptr<TextStream> stream) {
        kept = stream;
        stream->OnWritable([&] { produce(kept.get()); });
        EXPECT_EQ(produce(stream.get()), StreamWrite::kFull);
        full.Notify();
      },
      {}, options);
  grpc::ClientContext context;
  const auto reader = inference_->StreamGenerateText(&context, {});
  full.WaitForNotification();
  int read = 0;
  StreamGenerateTextResponse response;
  while (reader->Read(&response)) ++read;
  EXPECT_EQ(read, kTotal);
  EXPECT_TRUE(reader->Finish().ok());
}

TEST_F(Service, StopsProducersWhenTheClientIsGone) {
  absl::Notification started, cancelled;
  std::shared_ptr<TextStream> kept;
  Start({}, [&](std::shared_ptr<CallContext> call, const StreamGenerateTextRequest&,
                std::shared_ptr<TextStream> stream) {
    call->OnCancel([&] { cancelled.Notify(); });
    kept = stream;
    stream->Write(Delta(0));
    started.Notify();
  });
  {
    grpc::ClientContext context;
    const auto reader = inference_->StreamGenerateText(&context, {});
    StreamGenerateTextResponse response;
    ASSERT_TRUE(reader->Read(&response));
    started.WaitForNotification();
    context.TryCancel();
    EXPECT_EQ(reader->Finish().error_code(), grpc::CANCELLED);
  }
  cancelled.WaitForNotification();
  // The callback runs before the stream is closed; a few writes may still be taken.
  while (kept->Write(Delta(1)) != StreamWrite::kClosed) std::this_thread::yield();
}

TEST_F(Service, LetsCallsFinishDuringTheGrace) {
  absl::Notification called;
  std::unique_ptr<Respond<GetModelResponse>> kept;
  Start(
      [&](std::shared_ptr<CallContext>, const GetModelRequest&, Respond<GetModelResponse> respond) {
        kept = std::make_unique<Respond<GetModelResponse>>(respond);
        called.Notify();
      });
  std::thread client([&] { EXPECT_TRUE(GetModel("x").ok()); });
  called.WaitForNotification();
  std::thread shutdown([&] { server_->Shutdown(absl::Seconds(20)); });
  (*kept)(GetModelResponse());
  client.join();
  shutdown.join();
}

TEST_F(Service, CancelsWhatOutlastsTheGrace) {
  absl::Notification called;
  std::unique_ptr<Respond<GetModelResponse>> kept;
  Start(
      [&](std::shared_ptr<CallContext>, const GetModelRequest&, Respond<GetModelResponse> respond) {
        kept = std::make_unique<Respond<GetModelResponse>>(respond);
        called.Notify();
      });
  std::thread client([&] { EXPECT_EQ(GetModel("x").code(), absl::StatusCode::kUnavailable); });
  called.WaitForNotification();
  server_->Shutdown(absl::Milliseconds(1));
  client.join();
}

TEST_F(Service, EndsEndlessCallsAtShutdown) {
  MethodOptions options;
  options.end_at_shutdown = true;
  std::shared_ptr<TextStream> kept;
  Start(
      {},
      [&](std::shared_ptr<CallContext>, const StreamGenerateTextRequest&,
          std::shared_ptr<TextStream> stream) {
        stream->Write(Delta(0));
        kept = stream;
      },
      {}, options);
  grpc::ClientContext context;
  const auto reader = inference_->StreamGenerateText(&context, {});
  StreamGenerateTextResponse response;
  ASSERT_TRUE(reader->Read(&response));
  std::thread shutdown([&] { server_->Shutdown(absl::InfiniteDuration()); });
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(ReasonOf(FromGrpcStatus(reader->Finish())), "DRAINING");
  shutdown.join();
}

TEST_F(Service, ReportsEachCall) {
  absl::Mutex mu;
  std::vector<std::string> records;
  ServerOptions options;
  options.on_call_done = [&](const CallRecord& record) {
    EXPECT_GE(record.duration, absl::ZeroDuration());
    absl::MutexLock lock(&mu);
    records.push_back(absl::StrCat(record.method, " ", absl::StatusCodeToString(record.code)));
  };
  Start(
      [](std::shared_ptr<CallContext>, const GetModelRequest& request,
         Respond<GetModelResponse> respond) {
        if (request.name() == "bad") return respond(ModelNotFound("bad"));
        respond(GetModelResponse());
      },
      {}, options);
  EXPECT_TRUE(GetModel("good").ok());
  EXPECT_FALSE(GetModel("bad").ok());
  grpc::ClientContext context;
  ListModelsResponse response;
  EXPECT_FALSE(models_->ListModels(&context, {}, &response).ok());
  server_->Shutdown(absl::Seconds(5));
  EXPECT_THAT(records, ElementsAre("/gatefold.inference.v1.ModelService/GetModel OK",
                                   "/gatefold.inference.v1.ModelService/GetModel NOT_FOUND",
                                   "other UNIMPLEMENTED"));
}

TEST_F(Service, WorksInProcess) {
  Start(Echo);
  models_ = ModelService::NewStub(server_->InProcessChannel());
  GetModelResponse response;
  ASSERT_TRUE(GetModel("here", &response).ok());
  EXPECT_EQ(response.model().name(), "here");
}

TEST(Server, RefusesAPortThatIsTaken) {
  ServerOptions options;
  options.addresses = {"127.0.0.1:0"};
  RpcServer first(options);
  ASSERT_TRUE(first.Start().ok());
  EXPECT_GT(first.port(), 0);
  options.addresses = {first.address()};
  RpcServer second(options);
  const absl::Status status = second.Start();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(first.address()));
}

TEST(Server, RefusesBadOptions) {
  ServerOptions options;
  options.addresses = {"nowhere"};
  EXPECT_EQ(RpcServer(options).Start().code(), absl::StatusCode::kInvalidArgument);
  options.addresses = {"127.0.0.1:0"};
  options.max_calls = 0;
  EXPECT_EQ(RpcServer(options).Start().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Server, ListensOnSeveralAddresses) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/gf-mode-", getpid());
  ServerOptions options;
  options.addresses = {"127.0.0.1:0", absl::StrCat("unix:", path)};
  options.unix_socket_mode = 0660;
  RpcServer server(options);
  AddUnary<GetModelRequest, GetModelResponse>(&server, kModelService, "GetModel", Echo);
  ASSERT_TRUE(server.Start().ok());
  struct stat found;
  ASSERT_EQ(stat(path.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0660);
  for (int i = 0; i < 2; ++i) {
    const auto stub = ModelService::NewStub(
        *MakeChannel(server.address(i), ChannelKind::kDecode, ChannelOptions()));
    grpc::ClientContext context;
    GetModelResponse response;
    EXPECT_TRUE(stub->GetModel(&context, {}, &response).ok()) << server.address(i);
  }
  EXPECT_THAT(server.ServiceNames(), ElementsAre(kModelService));
  server.Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(Server, ListensAtEachAddressOfAHost) {
  for (const char* host : {"localhost", "0.0.0.0", "127.0.0.1"}) {
    ServerOptions options;
    options.addresses = {absl::StrCat(host, ":0")};
    RpcServer server(options);
    AddUnary<GetModelRequest, GetModelResponse>(&server, kModelService, "GetModel", Echo);
    ASSERT_TRUE(server.Start().ok()) << host;
    EXPECT_EQ(server.address(), absl::StrCat(host, ":", server.port()));
    const auto stub = ModelService::NewStub(*MakeChannel(absl::StrCat("127.0.0.1:", server.port()),
                                                         ChannelKind::kDecode, ChannelOptions()));
    grpc::ClientContext context;
    GetModelResponse response;
    EXPECT_TRUE(stub->GetModel(&context, {}, &response).ok()) << host;
  }
}

TEST(Server, DoesNotTakeASocketFromALivingServer) {
  ServerOptions options;
  options.addresses = {absl::StrCat("unix:", ::testing::TempDir(), "/gf-taken-", getpid())};
  RpcServer first(options);
  ASSERT_TRUE(first.Start().ok());
  EXPECT_EQ(RpcServer(options).Start().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(std::filesystem::exists(options.addresses[0].substr(5)));
}

}  // namespace
}  // namespace gatefold

#include "router-service/gateway/gateway_service.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <unistd.h>

#include <functional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "gatefold/inference/v1/model.grpc.pb.h"
#include "gatefold/rpc/status.h"
#include "gtest/gtest.h"
#include "router-service/gateway/gateway_fakes.h"
#include "router-service/gateway/large_blocks.h"

namespace gatefold {
namespace {

using inference::v1::GenerateTextRequest;
using inference::v1::GenerateTextResponse;
using inference::v1::StreamGenerateTextRequest;
using inference::v1::StreamGenerateTextResponse;

// The whole way over a unix socket: generated stubs on one side, the fake scheduler on the other.
class GatewayServiceTest : public testing::Test {
 protected:
  GatewayServiceTest() { Restart(); }
  ~GatewayServiceTest() override { server_->Shutdown(absl::ZeroDuration()); }

  void Restart() {
    if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
    Gateway::Dependencies deps;
    deps.codec = codec_;
    deps.service = &service_;
    deps.cluster = &cluster_;
    ModelInfo model = TinyModel();
    model.max_sequence_tokens = service_.max_tokens;
    gateway_ = *Gateway::Create(options_, model, deps);
    ServerOptions options;
    options.addresses = {absl::StrCat("unix:/tmp/gatefold_gateway_test_", getpid(), ".sock")};
    server_ = std::make_unique<RpcServer>(options);
    AddInferenceService(server_.get(), gateway_.get());
    AddModelService(server_.get(), gateway_.get());
    AddClusterService(server_.get(), {&cluster_, &watch_, &stats_, gateway_.get()});
    AddAdminService(server_.get(), gateway_.get(), &admin_);
    const absl::Status started = server_->Start();
    EXPECT_TRUE(started.ok()) << started;
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt("grpc.use_local_subchannel_pool", 1);
    channel_ = grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(),
                                         arguments);
    inference_ = inference::v1::InferenceService::NewStub(channel_);
  }

  static GenerateTextRequest Hello() {
    GenerateTextRequest request;
    request.mutable_prompt()->set_text("hello");
    return request;
  }
  absl::Status Generate(const GenerateTextRequest& request) {
    grpc::ClientContext context;
    GenerateTextResponse response;
    return FromGrpcStatus(inference_->GenerateText(&context, request, &response));
  }

  std::shared_ptr<FakeCodec> codec_ = std::make_shared<FakeCodec>();
  FakeGenerationService service_;
  FakeCluster cluster_;
  FakeStats stats_;
  FakeAdmin admin_;
  ClusterWatch watch_{&cluster_, /*tick=*/absl::Milliseconds(1)};
  GatewayOptions options_;
  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<inference::v1::InferenceService::Stub> inference_;
};

TEST_F(GatewayServiceTest, StreamsTokensAsTheyCome) {
  grpc::ClientContext context;
  StreamGenerateTextRequest request;
  *request.mutable_request() = Hello();
  auto stream = inference_->StreamGenerateText(&context, request);
  StreamGenerateTextResponse event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_TRUE(event.has_started());
  std::string text;
  for (const char* part : {"one ", "two ", "three"}) {
    service_.Await(0).Say(part);
    std::string got;
    while (got.size() < strlen(part)) {
      ASSERT_TRUE(stream->Read(&event));
      got += event.delta().text();
    }
    text += got;
  }
  service_.Await(0).Stop();
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.finish().reason(), inference::v1::FINISH_REASON_STOP);
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.summary().usage().output_tokens(), 13);
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(text, "one two three");
}

TEST_F(GatewayServiceTest, FreesTheSchedulerWhenTheClientGoesAway) {
  auto context = std::make_unique<grpc::ClientContext>();
  StreamGenerateTextRequest request;
  *request.mutable_request() = Hello();
  auto stream = inference_->StreamGenerateText(context.get(), request);
  StreamGenerateTextResponse event;
  ASSERT_TRUE(stream->Read(&event));
  context->TryCancel();
  service_.AwaitRelease(0);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GatewayServiceTest, UnaryCallsAreCancelledByTheirDeadline) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  GenerateTextResponse response;
  const grpc::Status status = inference_->GenerateText(&context, Hello(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  if (service_.n_submitted() > 0) {
    EXPECT_LT(service_.Await(0).request.deadline, absl::InfiniteFuture());
    service_.AwaitRelease(0);
  }
}

TEST_F(GatewayServiceTest, AClientThatDoesNotReadHoldsNothingBack) {
  service_.max_tokens = 1 << 20;
  Restart();
  grpc::ClientContext context;
  StreamGenerateTextRequest request;
  *request.mutable_request() = Hello();
  auto stream = inference_->StreamGenerateText(&context, request);
  // More than sockets and queues hold: it must merge, and the scheduler must not notice.
  constexpr int kTokens = 400'000;
  service_.Await(0).Say(std::string(kTokens, 'x'));
  service_.Await(0).Stop();
  StreamGenerateTextResponse event;
  size_t n_text = 0;
  int n_deltas = 0;
  while (stream->Read(&event)) {
    n_text += event.delta().text().size();
    n_deltas += event.has_delta();
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(n_text, kTokens);
  EXPECT_LT(n_deltas, kTokens);
}

TEST_F(GatewayServiceTest, ErrorsArriveWithTheirDetails) {
  GenerateTextRequest request = Hello();
  request.mutable_config()->set_top_p(0);
  absl::Status status = Generate(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), kBadRequest);
  EXPECT_EQ(GetErrorDetails(status).violations.at(0).field, "config.top_p");
  request = Hello();
  request.set_model("other");
  EXPECT_EQ(ReasonOf(Generate(request)), kModelNotFound);
  request = Hello();
  for (int i = 0; i < 100; ++i) request.mutable_prompt()->mutable_token_ids()->add_ids(1);
  EXPECT_EQ(GetErrorDetails(Generate(request)).metadata,
            (std::vector<std::pair<std::string, std::string>>{{"limit", "64"},
                                                              {"prompt_tokens", "100"}}));
  service_.refuse_after = 0;
  service_.refusal = QueueFull(absl::Milliseconds(1500));
  status = Generate(Hello());
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryDelayOf(status), absl::Milliseconds(1500));
}

TEST_F(GatewayServiceTest, RefusesHugePromptsAndInvalidUtf8AsTheCallersFault) {
  GenerateTextRequest request;
  request.mutable_prompt()->set_text(std::string(2'000'000, 'x'));
  absl::Status status = Generate(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "prompt.text: has 2000000 bytes, the limit is 1048576");
  request.mutable_prompt()->set_text(std::string(10'000'000, 'x'));
  status = Generate(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(
      status.message(), absl::StrCat("bytes, the limit is ", gateway_->max_request_bytes())))
      << status;
  request.mutable_prompt()->set_text("gr\xc3");
  EXPECT_EQ(Generate(request).code(), absl::StatusCode::kInvalidArgument) << Generate(request);
  EXPECT_EQ(service_.n_submitted(), 0);
}

TEST_F(GatewayServiceTest, RefusesHostsOfMessagesUnparsedAndMoreThanThereMayBeByName) {
  GenerateTextRequest request;
  for (int i = 0; i < 2000; ++i) request.mutable_prompt()->mutable_conversation()->add_messages();
  EXPECT_EQ(Generate(request).message(),
            "prompt.conversation.messages: has 2000 messages, the limit is 1024");
  for (int i = 0; i < 500'000; ++i)
    request.mutable_prompt()->mutable_conversation()->add_messages();
  const absl::Status status = Generate(request);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(),
                                "the limit is 65536, and there are more in "
                                "gatefold.inference.v1.Conversation.messages"))
      << status;
}

TEST_F(GatewayServiceTest, CopiesNoRequest) {
  const std::string text(2'000'000, 'x');  // refused, so that nothing is made of it
  GenerateTextRequest request;
  request.mutable_prompt()->set_text(text);
  StreamGenerateTextRequest stream;
  *stream.mutable_request() = request;
  inference::v1::CountTokensRequest count;
  count.mutable_prompt()->set_text(text);
  const auto calls = {
      std::function<void()>([&] { EXPECT_FALSE(Generate(request).ok()); }),
      std::function<void()>([&] {
        grpc::ClientContext context;
        StreamGenerateTextResponse event;
        EXPECT_FALSE(inference_->StreamGenerateText(&context, stream)->Read(&event));
      }),
      std::function<void()>([&] {
        grpc::ClientContext context;
        inference::v1::CountTokensResponse n;
        EXPECT_FALSE(inference_->CountTokens(&context, count, &n).ok());
      })};
  for (const auto& call : calls) {
    n_large_blocks = 0;
    call();
    // What came in pieces is put together and parsed from there.
    EXPECT_EQ(n_large_blocks, 2);
  }
}

TEST_F(GatewayServiceTest, ServesTheShortCalls) {
  grpc::ClientContext contexts[4];
  inference::v1::CountTokensRequest count;
  count.mutable_prompt()->set_text("abc");
  inference::v1::CountTokensResponse n;
  EXPECT_TRUE(inference_->CountTokens(&contexts[0], count, &n).ok());
  EXPECT_EQ(n.n_tokens(), 4);
  inference::v1::TokenizeRequest tokenize;
  tokenize.mutable_prompt()->set_text("abc");
  inference::v1::TokenizeResponse tokens;
  EXPECT_TRUE(inference_->Tokenize(&contexts[1], tokenize, &tokens).ok());
  inference::v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = tokens.token_ids();
  inference::v1::DetokenizeResponse text;
  EXPECT_TRUE(inference_->Detokenize(&contexts[2], detokenize, &text).ok());
  EXPECT_EQ(text.text(), "abc");
}

TEST_F(GatewayServiceTest, DescribesModelAndCluster) {
  auto models = inference::v1::ModelService::NewStub(channel_);
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  grpc::ClientContext contexts[6];
  inference::v1::GetModelResponse model;
  EXPECT_TRUE(models->GetModel(&contexts[0], {}, &model).ok());
  EXPECT_EQ(model.model().name(), "tiny");
  inference::v1::GetModelRequest unknown;
  unknown.set_name("x");
  EXPECT_EQ(models->GetModel(&contexts[1], unknown, &model).error_code(),
            grpc::StatusCode::NOT_FOUND);
  inference::v1::ListModelsResponse list;
  EXPECT_TRUE(models->ListModels(&contexts[2], {}, &list).ok());
  EXPECT_EQ(list.models_size(), 1);
  cluster::v1::GetClusterResponse snapshot;
  EXPECT_TRUE(clusters->GetCluster(&contexts[3], {}, &snapshot).ok());
  EXPECT_EQ(snapshot.topology_version(), 7);
  cluster::v1::ListWorkersRequest workers;
  workers.set_page_size(2);
  cluster::v1::ListWorkersResponse page;
  EXPECT_TRUE(clusters->ListWorkers(&contexts[4], workers, &page).ok());
  EXPECT_EQ(page.workers_size(), 2);
  EXPECT_EQ(page.next_page_token(), "2");
  cluster::v1::GetExpertLoadResponse load;
  EXPECT_TRUE(clusters->GetExpertLoad(&contexts[5], {}, &load).ok());
  EXPECT_EQ(load.experts(0).rows(), 3);
}

TEST_F(GatewayServiceTest, AnAdministratorCancelsById) {
  grpc::ClientContext contexts[3];
  StreamGenerateTextRequest request;
  *request.mutable_request() = Hello();
  request.mutable_request()->set_request_id("job-1");
  auto stream = inference_->StreamGenerateText(&contexts[0], request);
  StreamGenerateTextResponse event;
  ASSERT_TRUE(stream->Read(&event));
  auto admin = cluster::v1::AdminService::NewStub(channel_);
  cluster::v1::CancelGenerationRequest cancel;
  cancel.set_request_id("job-1");
  cluster::v1::CancelGenerationResponse none;
  EXPECT_TRUE(admin->CancelGeneration(&contexts[1], cancel, &none).ok());
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.finish().reason(), inference::v1::FINISH_REASON_CANCELLED);
  while (stream->Read(&event)) {
  }
  EXPECT_TRUE(stream->Finish().ok());
  cancel.set_request_id("job-2");
  EXPECT_EQ(admin->CancelGeneration(&contexts[2], cancel, &none).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(GatewayServiceTest, TellsOfTheTopologyNowAndWheneverItChanges) {
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  grpc::ClientContext context;
  auto stream = clusters->WatchTopology(&context, {});
  cluster::v1::WatchTopologyResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.cluster().topology_version(), 7);
  EXPECT_EQ(response.cluster().workers_size(), 3);
  cluster_.version = 8;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.cluster().topology_version(), 8);
  // The end of the server ends the call, which has no end of its own.
  server_->Shutdown(absl::InfiniteDuration());
  EXPECT_FALSE(stream->Read(&response));
}

TEST_F(GatewayServiceTest, ForgetsWatchersThatLeaveThoughNothingChanges) {
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  grpc::ClientContext contexts[2];
  auto topology = clusters->WatchTopology(&contexts[0], {});
  cluster::v1::WatchExpertLoadRequest request;
  request.mutable_interval()->set_seconds(3600);
  auto load = clusters->WatchExpertLoad(&contexts[1], request);
  const auto await = [this](size_t n) {
    const absl::Time limit = absl::Now() + absl::Seconds(20);
    while (watch_.n_watchers() != n && absl::Now() < limit) absl::SleepFor(absl::Milliseconds(1));
    return watch_.n_watchers() == n;
  };
  EXPECT_TRUE(await(2));
  for (grpc::ClientContext& context : contexts) context.TryCancel();
  EXPECT_TRUE(await(0));
}

TEST_F(GatewayServiceTest, TellsOfTheLoadEveryInterval) {
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  grpc::ClientContext contexts[2];
  cluster::v1::WatchExpertLoadRequest request;
  request.mutable_interval()->set_nanos(1);
  cluster::v1::WatchExpertLoadResponse response;
  auto refused = clusters->WatchExpertLoad(&contexts[0], request);
  EXPECT_FALSE(refused->Read(&response));
  const absl::Status status = FromGrpcStatus(refused->Finish());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(status).violations.at(0).field, "interval");
  request.mutable_interval()->set_nanos(100'000'000);
  auto stream = clusters->WatchExpertLoad(&contexts[1], request);
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.experts(0).rows(), 3);
  }
}

TEST_F(GatewayServiceTest, TellsWhatCallersGet) {
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  grpc::ClientContext context;
  cluster::v1::GetServingStatsResponse stats;
  EXPECT_TRUE(clusters->GetServingStats(&context, {}, &stats).ok());
  EXPECT_EQ(stats.n_running(), 3);
}

TEST_F(GatewayServiceTest, TellsHowAGenerationWent) {
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  cluster::v1::GetGenerationTraceRequest request;
  cluster::v1::GetGenerationTraceResponse response;
  const auto ask = [&] {
    grpc::ClientContext context;
    return clusters->GetGenerationTrace(&context, request, &response).error_code();
  };
  EXPECT_EQ(ask(), grpc::StatusCode::INVALID_ARGUMENT);
  for (const std::string& no_id : {std::string(129, 'x'), std::string("a\nb")}) {
    request.set_request_id(no_id);
    EXPECT_EQ(ask(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  request.set_request_id("job-1");
  EXPECT_EQ(ask(), grpc::StatusCode::NOT_FOUND);

  grpc::ClientContext context;
  StreamGenerateTextRequest generate;
  *generate.mutable_request() = Hello();
  generate.mutable_request()->set_request_id("job-1");
  auto stream = inference_->StreamGenerateText(&context, generate);
  StreamGenerateTextResponse event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(ask(), grpc::StatusCode::FAILED_PRECONDITION);
  service_.Await(0).Say("abc");
  service_.Await(0).Stop();
  while (stream->Read(&event)) {
  }
  ASSERT_TRUE(stream->Finish().ok());
  ASSERT_EQ(ask(), grpc::StatusCode::OK);
  const cluster::v1::GenerationTrace& trace = response.trace();
  EXPECT_EQ(trace.request_id(), "job-1");
  EXPECT_EQ(trace.status().code(), 0);
  EXPECT_EQ(trace.usage().output_tokens(), 3);
  ASSERT_EQ(trace.candidates_size(), 1);
  EXPECT_EQ(trace.candidates(0).output_tokens(), 3);
  EXPECT_EQ(trace.candidates(0).finish_reason(), inference::v1::FINISH_REASON_STOP);
  EXPECT_EQ(trace.topology_version(), 7);
  EXPECT_GT(trace.arrival().seconds(), 1'700'000'000);
}

TEST_F(GatewayServiceTest, ATraceTellsOfFailuresToo) {
  service_.refuse_after = 0;
  service_.refusal = absl::UnavailableError("no expert");
  GenerateTextRequest generate = Hello();
  generate.set_request_id("job-2");
  EXPECT_EQ(Generate(generate).code(), absl::StatusCode::kUnavailable);
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  grpc::ClientContext context;
  cluster::v1::GetGenerationTraceRequest request;
  request.set_request_id("job-2");
  cluster::v1::GetGenerationTraceResponse response;
  ASSERT_TRUE(clusters->GetGenerationTrace(&context, request, &response).ok());
  EXPECT_EQ(response.trace().status().code(), static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_EQ(response.trace().status().message(), "no expert");
  EXPECT_FALSE(response.trace().timings().has_queue());  // it came to no step
}

TEST_F(GatewayServiceTest, ATraceDoesNotQuoteARequestThatWasRefused) {
  service_.refuse_after = 0;
  service_.refusal = absl::InvalidArgumentError("the secret word is too long");
  GenerateTextRequest generate = Hello();
  generate.set_request_id("job-3");
  EXPECT_EQ(Generate(generate).code(), absl::StatusCode::kInvalidArgument);
  auto clusters = cluster::v1::ClusterService::NewStub(channel_);
  grpc::ClientContext context;
  cluster::v1::GetGenerationTraceRequest request;
  request.set_request_id("job-3");
  cluster::v1::GetGenerationTraceResponse response;
  ASSERT_TRUE(clusters->GetGenerationTrace(&context, request, &response).ok());
  EXPECT_EQ(response.trace().status().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_FALSE(absl::StrContains(response.DebugString(), "secret"));
}

TEST_F(GatewayServiceTest, AnAdministratorFlushesTheKvCache) {
  auto admin = cluster::v1::AdminService::NewStub(channel_);
  grpc::ClientContext contexts[2];
  cluster::v1::FlushKvCacheRequest request;
  cluster::v1::FlushKvCacheResponse response;
  ASSERT_TRUE(admin->FlushKvCache(&contexts[0], request, &response).ok());
  EXPECT_EQ(response.workers(0).n_kv_blocks(), 3);
  request.set_worker("b");
  EXPECT_EQ(admin->FlushKvCache(&contexts[1], request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(GatewayServiceTest, AnAdministratorDrainsAndResumesWorkers) {
  auto admin = cluster::v1::AdminService::NewStub(channel_);
  grpc::ClientContext contexts[5];
  cluster::v1::DrainWorkerRequest drain;
  cluster::v1::DrainWorkerResponse drained;
  const absl::Status status = FromGrpcStatus(admin->DrainWorker(&contexts[0], drain, &drained));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(GetErrorDetails(status).violations.at(0).field, "worker");
  drain.set_worker("b");
  EXPECT_EQ(admin->DrainWorker(&contexts[1], drain, &drained).error_code(),
            grpc::StatusCode::NOT_FOUND);
  drain.set_worker("a");
  EXPECT_TRUE(admin->DrainWorker(&contexts[2], drain, &drained).ok());
  EXPECT_EQ(drained.worker().state(), cluster::v1::WORKER_STATE_DRAINING);
  cluster::v1::ResumeWorkerRequest resume;
  resume.set_worker("a");
  cluster::v1::ResumeWorkerResponse resumed;
  EXPECT_TRUE(admin->ResumeWorker(&contexts[3], resume, &resumed).ok());
  EXPECT_EQ(resumed.worker().state(), cluster::v1::WORKER_STATE_READY);
  cluster::v1::RebalanceExpertsResponse rebalanced;
  EXPECT_TRUE(admin->RebalanceExperts(&contexts[4], {}, &rebalanced).ok());
  EXPECT_EQ(rebalanced.n_loads(), 5);
}

}  // namespace
}  // namespace gatefold

#include "router-service/dispatch/remote_attention_client.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/stream_server.h"
#include "gatefold/worker/worker.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

// Opens whatever it is asked to, computes zeros, and says that as many KV blocks are free as the
// test wants.
class FakeAttentionService final : public StreamHandler {
 public:
  explicit FakeAttentionService(uint64_t incarnation) : incarnation_(incarnation) {
    ServerOptions options;
    options.addresses = {
        absl::StrCat("unix-abstract:gatefold-attention-", getpid(), "-", incarnation)};
    server_ = std::make_unique<RpcServer>(options);
    constexpr char kService[] = "gatefold.internal.v1.AttentionService";
    AddUnary<internal::v1::AttentionServiceDescribeRequest,
             internal::v1::AttentionServiceDescribeResponse>(
        server_.get(), kService, "Describe",
        [this](std::shared_ptr<CallContext>, const internal::v1::AttentionServiceDescribeRequest&,
               Respond<internal::v1::AttentionServiceDescribeResponse> respond) {
          internal::v1::AttentionServiceDescribeResponse response;
          response.mutable_worker()->set_incarnation(incarnation_);
          response.mutable_worker()->set_wire_version(kWireVersion);
          response.mutable_worker()->set_numerics_class(1);
          response.mutable_worker()->set_ready(true);
          response.set_n_kv_blocks_free(n_free);
          respond(response);
        });
    AddStream(server_.get(), kService, "Run", this, StreamOptions());
    GF_CHECK(server_->Start().ok());
  }
  ~FakeAttentionService() override {
    Release();
    server_->Shutdown(absl::ZeroDuration());
  }

  // It describes itself, and answers nothing else.
  void Hold() {
    absl::MutexLock lock(&mu_);
    held_ = true;
  }
  void Release() {
    absl::MutexLock lock(&mu_);
    held_ = false;
  }

  std::string address() const { return server_->address(); }

  absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>&) override {
    ++n_streams;
    return std::make_unique<Session>(this);
  }
  grpc::ByteBuffer Refuse(const grpc::ByteBuffer&) override { return {}; }

  std::atomic<int> n_free{100};
  std::atomic<bool> breaks{false};           // ends the stream instead of an answer, once
  std::atomic<bool> is_busy{false};          // refuses a call, once
  std::atomic<uint32_t> last_generation{0};  // of a call that was answered
  std::atomic<int> n_open{0};
  std::atomic<int> n_streams{0};  // that were opened

 private:
  class Session final : public StreamSession {
   public:
    explicit Session(FakeAttentionService* service) : service_(service) {}
    bool IsSmall(const grpc::ByteBuffer&) const override { return false; }  // it may be held
    absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time) override {
      {
        absl::MutexLock lock(&service_->mu_);
        service_->mu_.Await(absl::Condition(
            +[](FakeAttentionService* service)
                 ABSL_EXCLUSIVE_LOCKS_REQUIRED(service->mu_) { return !service->held_; },
            service_));
      }
      internal::v1::AttentionServiceRunRequest request;
      FramePayload payload;
      GF_RETURN_IF_ERROR(ReadFrame(frame, &request, &payload));
      if (service_->breaks.exchange(false)) return absl::UnavailableError("broken");
      service_->last_generation = request.key().generation();
      internal::v1::AttentionServiceRunResponse response;
      if (service_->is_busy.exchange(false)) {
        response.mutable_refusal()->set_reason(internal::v1::REFUSAL_REASON_BUSY);
        return WriteMessage(response);
      }
      service_->n_open += request.open_size() - request.close_size();
      for (int i = 0; i < request.open_size(); ++i) response.add_opened();
      response.set_n_kv_blocks_free(service_->n_free);
      response.set_dtype(request.dtype());
      response.set_n_rows(request.n_rows());
      response.set_d_model(request.d_model());
      GF_ASSIGN_OR_RETURN(OutgoingRows rows,
                          OutgoingRows::Make(request.dtype(), request.n_rows(), request.d_model()));
      std::fill_n(rows.data(), request.n_rows() * request.d_model(), 0.0f);
      return WriteFrame(response, rows.TakePayload());
    }

   private:
    FakeAttentionService* const service_;
  };

  const uint64_t incarnation_;
  absl::Mutex mu_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<RpcServer> server_;
};

class RemoteAttentionClientTest : public testing::Test {
 protected:
  RemoteAttentionClientTest() {
    Directory::Options options;
    options.attention_addresses = {first_.address(), second_.address()};
    options.interval = options.starting_interval = absl::Milliseconds(5);
    directory_ = *Directory::Start(options, ClusterIdentity());
    for (const int index : {0, 1}) AwaitFree(index, 100);
    client_ = std::make_unique<RemoteAttentionClient>(RemoteAttentionOptions{.cache_domain = 0}, 7,
                                                      0, 8, directory_.get(), &affinity_);
  }

  void AwaitFree(int index, int n) {
    EXPECT_TRUE(directory_->Await(
        [=](const RoutingTable& table) {
          return table.attention[index].state == WorkerEntry::State::kReady &&
                 static_cast<int>(table.attention[index].attention.n_kv_blocks_free()) == n;
        },
        absl::Now() + absl::Seconds(20)));
  }
  int Open(SequenceId id) {
    SequenceSpec spec;
    spec.id = id;
    spec.n_positions = 16;
    const absl::StatusOr<int> opened = client_->Open(spec);
    EXPECT_TRUE(opened.ok()) << opened.status();
    return client_->PlaceOf(id);
  }

  FakeAttentionService first_{1}, second_{2};
  std::unique_ptr<Directory> directory_;
  PrefixAffinity affinity_{16};
  std::unique_ptr<RemoteAttentionClient> client_;
};

// Answers tell how full a service is where the lane has sequences; other lanes fill and empty the
// others.
TEST_F(RemoteAttentionClientTest, KnowsHowFullServicesAreThatItDoesNotCall) {
  EXPECT_EQ(Open(1), 0);
  client_->Close(1);
  client_->Flush();
  first_.n_free = 10;
  second_.n_free = 50;
  AwaitFree(0, 10);
  AwaitFree(1, 50);
  EXPECT_EQ(Open(2), 1);
  first_.n_free = 90;
  AwaitFree(0, 90);
  EXPECT_EQ(Open(3), 0);
}

TEST_F(RemoteAttentionClientTest, CountsHowOftenItLostWhatItHadSomewhere) {
  EXPECT_EQ(Open(1), 0);
  EXPECT_EQ(first_.last_generation, 0u);
  first_.breaks = true;
  second_.n_free = 5;
  AwaitFree(1, 5);
  EXPECT_EQ(Open(2), 1);  // where it failed it is not tried again
  EXPECT_EQ(client_->PlaceOf(1), -1);
  EXPECT_EQ(second_.last_generation, 0u);
  EXPECT_EQ(Open(3), 0);
  EXPECT_EQ(first_.last_generation, 1u);
}

// A lane that is busy at one service must not keep what ended at another.
TEST_F(RemoteAttentionClientTest, ClosesWhereTheNextStepCallsNobody) {
  second_.n_free = 50;
  AwaitFree(1, 50);
  EXPECT_EQ(Open(1), 0);
  first_.n_free = 10;
  EXPECT_EQ(Open(2), 0);  // its answer says so
  EXPECT_EQ(Open(3), 1);
  client_->Close(3);
  Step step;
  step.spans = {{1, 0, 1}};
  step.token_ids = {5};
  float x[8];
  EXPECT_EQ(client_->EmbedAndAttend(step, x), absl::OkStatus());
  EXPECT_EQ(first_.n_open, 2);
  EXPECT_EQ(second_.n_open, 0);
}

// Else each sequence would be waited for as long as the first.
TEST_F(RemoteAttentionClientTest, OpensNothingWhereItWaitedInVain) {
  client_ = std::make_unique<RemoteAttentionClient>(
      RemoteAttentionOptions{.call_timeout = absl::Milliseconds(100), .cache_domain = 0}, 7, 0, 8,
      directory_.get(), &affinity_);
  first_.n_free = 200;
  AwaitFree(0, 200);
  first_.Hold();
  for (const SequenceId id : {1, 2, 3}) EXPECT_EQ(Open(id), 1);
  EXPECT_EQ(first_.n_streams, 1);
  // Nor where there is nothing else, for a moment.
  second_.Hold();
  SequenceSpec spec;
  spec.n_positions = 16;
  for (spec.id = 4; spec.id < 7; ++spec.id) {
    EXPECT_EQ(client_->Open(spec).status().code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_LE(first_.n_streams, 2);
  EXPECT_EQ(second_.n_streams, 1);
  second_.Release();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!client_->Open(spec).ok() && absl::Now() < deadline) std::this_thread::yield();
  EXPECT_EQ(client_->PlaceOf(spec.id), 1);
}

// Of a call that is refused nothing happens, so a long prompt that is refused for now must not take
// along what was to be closed before.
TEST_F(RemoteAttentionClientTest, ClosesAgainWhatWasInACallThatWasRefused) {
  second_.n_free = 0;
  AwaitFree(1, 0);
  EXPECT_EQ(Open(1), 0);
  client_->Close(1);
  first_.is_busy = true;
  EXPECT_EQ(Open(2), 1);
  EXPECT_EQ(first_.n_open, 1);
  EXPECT_EQ(Open(1), 0);  // where it still was
  EXPECT_EQ(first_.n_open, 1);
}

}  // namespace
}  // namespace gatefold

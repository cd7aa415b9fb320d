// The service's answers to good and hostile frames, without a network.

#include "expert-service/expert_service.h"

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "expert-service/checkpoint_experts.h"
#include "expert-service/options.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/lent_frame.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/stream_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using internal::v1::ExpertServiceRunRequest;
using internal::v1::ExpertServiceRunResponse;
using testing::HasSubstr;

class ExpertServiceTest : public testing::Test {
 protected:
  ExpertServiceTest() {
    EXPECT_TRUE(CheckpointExperts(catalog_->weights(), backend_.get())
                    .Fill(*ParseExpertSelection("*:0-3", 4, 8), nullptr, nullptr, &store_)
                    .ok());
    internal::v1::WorkerDescription worker;
    worker.set_incarnation(77);
    service_ = std::make_unique<ExpertService>(&runner_, worker, nullptr);
    service_->SetReady();
    session_ = *service_->OnOpen(nullptr);
  }

  // Two rows; expert 1 gets both, expert 3 the second.
  ExpertServiceRunRequest Request() const {
    ExpertServiceRunRequest request;
    request.mutable_key()->set_layer(2);
    request.mutable_key()->set_step(5);
    request.set_dtype(internal::v1::WIRE_DTYPE_FLOAT32);
    request.set_n_rows(2);
    request.set_d_model(64);
    for (uint32_t expert : {1, 3}) request.add_experts(expert);
    for (uint32_t n : {2, 1}) request.add_n_rows_of_expert(n);
    for (uint32_t row : {0, 1, 1}) request.add_rows(row);
    return request;
  }

  ExpertServiceRunResponse Send(const ExpertServiceRunRequest& request, size_t n_rows = 2) {
    PayloadBuffer rows(n_rows * 64 * sizeof(float));
    for (size_t i = 0; i < n_rows * 64; ++i) rows.as<float>()[i] = 0.01f * static_cast<float>(i);
    ExpertServiceRunResponse response;
    auto answer = session_->OnFrame(WriteFrame(request, rows), absl::Now());
    EXPECT_TRUE(answer.ok()) << answer.status();
    EXPECT_TRUE(ReadFrame(*answer, &response, &payload_).ok());
    return response;
  }

  std::vector<float> Answer() const {
    std::vector<float> values(payload_.size_bytes() / sizeof(float));
    payload_.CopyTo(values.data());
    return values;
  }

  void ExpectRefused(const std::function<void(ExpertServiceRunRequest*)>& change,
                     internal::v1::RefusalReason reason, const std::string& message,
                     size_t n_rows = 2) {
    ExpertServiceRunRequest request = Request();
    change(&request);
    const ExpertServiceRunResponse response = Send(request, n_rows);
    EXPECT_EQ(response.refusal().reason(), reason) << response.refusal().message();
    EXPECT_THAT(response.refusal().message(), HasSubstr(message));
    EXPECT_EQ(payload_.size_bytes(), 0u);
    EXPECT_EQ(response.key().step(), 5u);
    // The service lives, and answers the next call as ever.
    EXPECT_FALSE(Send(Request()).has_refusal());
  }

  std::unique_ptr<ExpertCatalog> catalog_ = *ExpertCatalog::Open("tests/golden/mixtral/bf16", {});
  const std::unique_ptr<ExpertBackend> backend_ = MakeCpuExpertBackend(nullptr);
  ExpertStore store_{catalog_->config(), backend_.get()};
  ExpertRunner runner_{&store_};
  std::unique_ptr<ExpertService> service_;
  std::unique_ptr<StreamSession> session_;
  FramePayload payload_;
};

TEST_F(ExpertServiceTest, AnswersEveryRowAndExpertInOrder) {
  const ExpertServiceRunResponse response = Send(Request());
  ASSERT_FALSE(response.has_refusal()) << response.refusal().message();
  EXPECT_EQ(response.n_rows(), 3u);
  const std::vector<float> together = Answer();
  ASSERT_EQ(together.size(), 3u * 64);
  // Row 1 alone at expert 3 gives the bits it has in the batch.
  ExpertServiceRunRequest alone = Request();
  alone.clear_experts();
  alone.clear_n_rows_of_expert();
  alone.clear_rows();
  alone.add_experts(3);
  alone.add_n_rows_of_expert(1);
  alone.add_rows(1);
  Send(alone);
  EXPECT_EQ(Answer(), std::vector<float>(together.begin() + 128, together.end()));
}

TEST_F(ExpertServiceTest, RefusesFramesWhoseNumbersDoNotFit) {
  const auto bad = internal::v1::REFUSAL_REASON_BAD_REQUEST;
  ExpectRefused([](auto* r) { r->set_d_model(63); }, bad, "d_model is 63, must be 64");
  ExpectRefused([](auto* r) { r->mutable_key()->set_layer(4); }, bad, "layer is 4");
  ExpectRefused([](auto* r) { r->set_rows(2, 2); }, bad, "rows[2] is 2, n_rows says 2");
  ExpectRefused([](auto* r) { r->add_rows(0); }, bad, "size of rows is 4, must be 3");
  ExpectRefused([](auto* r) { r->set_n_rows_of_expert(0, 0xffffffff); }, bad, "size of rows");
  ExpectRefused([](auto* r) { r->set_experts(1, 8); }, bad, "experts[1] is 8");
  ExpectRefused([](auto* r) { r->set_experts(1, 1); }, bad, "must ascend");
  ExpectRefused([](auto* r) { r->add_experts(5); }, bad, "n_rows_of_expert is 2, must be 3");
  ExpectRefused([](auto*) {}, bad, "", /*n_rows=*/3);
  ExpectRefused([](auto* r) { r->set_n_rows(0x7fffffff); }, bad, "");
  ExpectRefused([](auto* r) { r->set_dtype(internal::v1::WIRE_DTYPE_UNSPECIFIED); }, bad, "");
}

TEST_F(ExpertServiceTest, KeepsNothingOfAFrameThatIsAnswered) {
  PayloadBuffer rows(2 * 64 * sizeof(float));
  std::fill_n(rows.as<float>(), 2 * 64, 0.5f);
  LentFrame lent(Request(), rows);
  EXPECT_TRUE(session_->OnFrame(lent.frame(), absl::Now()).ok());
  EXPECT_TRUE(lent.IsGivenBack());
}

TEST_F(ExpertServiceTest, SaysWhichExpertItDoesNotHold) {
  ExpectRefused([](auto* r) { r->set_experts(1, 7); }, internal::v1::REFUSAL_REASON_EXPERT_NOT_HELD,
                "expert 7 of layer 2");
}

TEST_F(ExpertServiceTest, RefusesCallsMeantForAnEarlierLife) {
  ExpectRefused([](auto* r) { r->mutable_key()->set_incarnation(76); },
                internal::v1::REFUSAL_REASON_STALE_EPOCH, "restarted");
}

TEST_F(ExpertServiceTest, RefusesWhileLoading) {
  ExpertService loading(&runner_, {}, nullptr);
  session_ = *loading.OnOpen(nullptr);
  EXPECT_EQ(Send(Request()).refusal().reason(), internal::v1::REFUSAL_REASON_NOT_READY);
}

TEST_F(ExpertServiceTest, AnOperatorDrainsAndResumesItAndItAnswersMeanwhile) {
  ASSERT_TRUE(service_->SetDrained(true).ok());
  EXPECT_TRUE(service_->Describe().worker().draining());
  EXPECT_FALSE(Send(Request()).has_refusal());
  ASSERT_TRUE(service_->SetDrained(false).ok());
  EXPECT_FALSE(service_->Describe().worker().draining());
  EXPECT_GT(service_->Describe().busy_nanos(), 0);
  // A process that ends cannot be taken back.
  service_->SetDraining();
  EXPECT_TRUE(absl::IsFailedPrecondition(service_->SetDrained(false)));
  EXPECT_TRUE(service_->SetDrained(true).ok());
  EXPECT_TRUE(service_->Describe().worker().draining());
}

TEST_F(ExpertServiceTest, CountsTheRowsThatItComputed) {
  Send(Request());
  Send(Request());
  EXPECT_EQ(service_->Describe().n_rows_computed(), 6u);
  ExpertServiceRunRequest refused = Request();
  refused.set_experts(1, 7);
  EXPECT_TRUE(Send(refused).has_refusal());
  EXPECT_EQ(service_->Describe().n_rows_computed(), 6u);
}

TEST_F(ExpertServiceTest, DescribesWhatItHolds) {
  const internal::v1::ExpertShard shard = service_->Describe();
  ASSERT_EQ(shard.held_size(), 4);
  EXPECT_EQ(shard.held(3).layer(), 3u);
  EXPECT_EQ(shard.held(3).first_expert(), 0u);
  EXPECT_EQ(shard.held(3).n_experts(), 4u);
  EXPECT_TRUE(shard.worker().ready());
  EXPECT_EQ(shard.loaded_bytes(), store_.loaded_bytes());
}

TEST_F(ExpertServiceTest, TakesAssignmentsThatFitTheModel) {
  internal::v1::AssignRequest request;
  request.set_epoch(3);
  internal::v1::ExpertRange* range = request.add_experts();
  range->set_layer(1);
  range->set_first_expert(6);
  range->set_n_experts(2);
  // Fixed experts stay.
  EXPECT_EQ(service_->Assign(request).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(service_->Describe().assignable());

  CheckpointExperts source(catalog_->weights(), backend_.get());
  ExpertLoader loader(catalog_.get(), &source, &store_, {});
  service_->SetLoader(&loader);
  const auto refuse = [&](auto change, const std::string& message) {
    internal::v1::AssignRequest wrong = request;
    change(&wrong);
    const absl::Status status = service_->Assign(wrong);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  refuse([](auto* r) { r->mutable_experts(0)->set_layer(4); }, "experts[0].layer is 4");
  refuse([](auto* r) { r->mutable_experts(0)->set_first_expert(8); }, "experts[0] is 2 from 8");
  refuse([](auto* r) { r->mutable_experts(0)->set_n_experts(3); }, "experts[0] is 3 from 6");
  refuse([](auto* r) { r->mutable_experts(0)->set_n_experts(0xffffffff); }, "a layer has 8");
  refuse([](auto* r) { r->set_n_slices(99); }, "n_slices is 99");
  refuse([](auto* r) { r->add_holders()->set_address("nowhere"); }, "holders[0]");
  refuse(
      [](auto* r) {
        r->add_holders()->set_address("unix:/x");
        r->mutable_holders(0)->add_experts()->set_layer(4);
      },
      "holders[0].experts[0].layer is 4");
  refuse(
      [](auto* r) {
        for (int i = 0; i < 65; ++i) r->add_holders()->set_address("unix:/x");
      },
      "size of holders is 65, must be at most 64");
  EXPECT_EQ(service_->Describe().epoch(), 0u);

  ASSERT_TRUE(service_->Assign(request).ok());
  ASSERT_TRUE(loader.AwaitIdle(absl::Now() + absl::Seconds(30)));
  const internal::v1::ExpertShard shard = service_->Describe();
  EXPECT_TRUE(shard.assignable());
  EXPECT_EQ(shard.epoch(), 3u);
  EXPECT_EQ(shard.n_loading(), 0u);
  ASSERT_EQ(shard.held_size(), 1);
  EXPECT_EQ(shard.held(0).layer(), 1u);
  EXPECT_EQ(shard.held(0).first_expert(), 6u);
  EXPECT_EQ(shard.held(0).n_experts(), 2u);
  service_->SetLoader(nullptr);
}

TEST_F(ExpertServiceTest, BytesThatAreNoMessageEndTheStreamWithAnError) {
  grpc::Slice slice("\xff\xff\xff\xff garbage");
  auto answer = session_->OnFrame(grpc::ByteBuffer(&slice, 1), absl::Now());
  EXPECT_EQ(answer.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ExpertServiceTest, TellsWatchersOfChangesAndForgetsThoseWhoLeave) {
  ServerOptions options;
  options.addresses = {absl::StrCat("unix-abstract:expert-service-test-", getpid())};
  RpcServer server(options);
  service_->Register(&server);
  ASSERT_TRUE(server.Start().ok());
  StreamSet streams(WaitPolicy::Block());
  StreamEvent event;
  const auto watch = [&] {
    PeerStream* stream =
        streams.Open(*MakeChannel(server.address(), ChannelKind::kDecode, ChannelOptions()),
                     "/gatefold.internal.v1.ExpertService/Watch");
    EXPECT_TRUE(stream->SendLast(WriteMessage(internal::v1::WatchRequest())).ok());
    return stream;
  };
  const auto told = [&] {
    internal::v1::WatchResponse response;
    EXPECT_TRUE(streams.WaitAny(absl::Now() + absl::Seconds(20), &event));
    EXPECT_EQ(event.kind, StreamEvent::Kind::kAnswer);
    EXPECT_TRUE(ReadMessage(event.answer, 1 << 20, &response).ok());
    return response.shard().worker();
  };
  PeerStream* const first = watch();
  EXPECT_FALSE(told().draining());
  watch();
  EXPECT_TRUE(told().ready());
  EXPECT_EQ(service_->n_watchers(), 2);
  streams.Close(first);
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (service_->n_watchers() > 1 && absl::Now() < deadline) {
    streams.WaitAny(absl::Now() + absl::Milliseconds(1), &event);
  }
  EXPECT_EQ(service_->n_watchers(), 1);
  service_->SetDraining();
  EXPECT_TRUE(told().draining());
  service_->EndWatches();
  ASSERT_TRUE(streams.WaitAny(absl::Now() + absl::Seconds(20), &event));
  EXPECT_EQ(event.kind, StreamEvent::Kind::kBroken);
  EXPECT_EQ(event.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_->n_watchers(), 0);
}

TEST(ExpertServiceOptionsTest, NameTheFlagThatCannotBe) {
  ExpertServiceOptions options;
  options.worker.model_dir = options.worker.listen = "somewhere";
  EXPECT_TRUE(options.Validate().ok()) << options.Validate();
  options.drain_limit = absl::Seconds(-5);
  EXPECT_EQ(options.Validate().message(), "--drain-limit is -5s, must not be negative");
  options.drain_limit = absl::ZeroDuration();
  options.capacity_bytes = 1000;
  EXPECT_THAT(std::string(options.Validate().message()),
              HasSubstr("--capacity is 1000 and --experts is all"));
  options.experts = "none";
  EXPECT_TRUE(options.Validate().ok()) << options.Validate();
}

}  // namespace
}  // namespace gatefold

// The service's answers to good and hostile frames, without a network.

#include "attention-service/attention_service.h"

#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "gatefold/rpc/frame.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using internal::v1::RunAttentionRequest;
using internal::v1::RunAttentionResponse;
using testing::HasSubstr;

class AttentionServiceTest : public testing::Test {
 protected:
  AttentionServiceTest() {
    AttentionHostOptions options;
    options.kv_memory_bytes = 256 << 10;  // 16 blocks of this model
    host_ = *AttentionHost::Load(*weights_, options, &threads_, nullptr);
    internal::v1::WorkerDescription worker;
    worker.set_incarnation(77);
    service_ = std::make_unique<AttentionService>(host_.get(), worker, nullptr);
    session_ = *service_->OnOpen(nullptr);
  }

  RunAttentionRequest Request(internal::v1::AttentionOperation operation) const {
    RunAttentionRequest request;
    request.mutable_key()->set_router_id(1);
    request.set_operation(operation);
    request.set_dtype(internal::v1::WIRE_DTYPE_FLOAT32);
    request.set_d_model(64);
    return request;
  }

  // Three tokens at the start of sequence 9.
  RunAttentionRequest Embed() const {
    RunAttentionRequest request = Request(internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND);
    request.set_n_rows(3);
    request.add_spans()->set_sequence_id(9);
    request.mutable_spans(0)->set_n_tokens(3);
    for (int token : {5, 6, 7}) request.add_token_ids(token);
    return request;
  }

  RunAttentionResponse Send(const RunAttentionRequest& request, size_t n_rows = 0) {
    PayloadBuffer rows(n_rows * 64 * sizeof(float));
    for (size_t i = 0; i < n_rows * 64; ++i) rows.as<float>()[i] = 0.01f * static_cast<float>(i);
    RunAttentionResponse response;
    auto answer = session_->OnFrame(WriteFrame(request, rows), absl::Now());
    EXPECT_TRUE(answer.ok()) << answer.status();
    EXPECT_TRUE(ReadFrame(*answer, &response, &payload_).ok());
    return response;
  }

  internal::v1::RefusalReason Open(uint64_t id, uint32_t n_positions) {
    RunAttentionRequest request = Request(internal::v1::ATTENTION_OPERATION_SEQUENCES);
    internal::v1::OpenSequence* open = request.add_open();
    open->set_sequence_id(id);
    open->set_n_positions(n_positions);
    open->mutable_sampling()->set_top_p(1);
    open->mutable_sampling()->set_repetition_penalty(1);
    const RunAttentionResponse response = Send(request);
    EXPECT_EQ(response.opened_size(), 1);
    return response.opened(0).reason();
  }

  void ExpectRefused(const std::function<void(RunAttentionRequest*)>& change,
                     internal::v1::RefusalReason reason, const std::string& message,
                     RunAttentionRequest request, size_t n_rows = 0) {
    change(&request);
    const RunAttentionResponse response = Send(request, n_rows);
    EXPECT_EQ(response.refusal().reason(), reason) << response.refusal().message();
    EXPECT_THAT(response.refusal().message(), HasSubstr(message));
    EXPECT_EQ(payload_.size_bytes(), 0u);
  }

  std::unique_ptr<ModelWeights> weights_ = *ModelWeights::Open("tests/golden/mixtral/bf16");
  ThreadPool threads_{1, absl::ZeroDuration()};
  std::unique_ptr<AttentionHost> host_;
  std::unique_ptr<AttentionService> service_;
  std::unique_ptr<StreamSession> session_;
  FramePayload payload_;
};

constexpr auto kBad = internal::v1::REFUSAL_REASON_BAD_REQUEST;

TEST_F(AttentionServiceTest, OpensAttendsSamplesAndCloses) {
  ASSERT_EQ(Open(9, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  RunAttentionResponse response = Send(Embed());
  ASSERT_FALSE(response.has_refusal()) << response.refusal().message();
  EXPECT_EQ(payload_.size_bytes(), 3u * 64 * sizeof(float));
  RunAttentionRequest sample = Request(internal::v1::ATTENTION_OPERATION_SAMPLE);
  sample.set_n_rows(1);
  sample.add_samples()->set_sequence_id(9);
  sample.mutable_samples(0)->set_position(2);
  response = Send(sample, 1);
  ASSERT_FALSE(response.has_refusal()) << response.refusal().message();
  EXPECT_EQ(response.sampled_size(), 1);
  const uint32_t n_free = response.n_kv_blocks_free();
  RunAttentionRequest close = Request(internal::v1::ATTENTION_OPERATION_SEQUENCES);
  close.add_close(9);
  EXPECT_EQ(Send(close).n_kv_blocks_free(), n_free + 2);
}

TEST_F(AttentionServiceTest, RefusesFramesWhoseNumbersDoNotFit) {
  ASSERT_EQ(Open(9, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  ExpectRefused([](auto* r) { r->set_d_model(65); }, kBad, "d_model is 65", Embed());
  ExpectRefused([](auto* r) { r->set_n_rows(4); }, kBad, "spans have 3 rows, n_rows says 4",
                Embed());
  ExpectRefused([](auto* r) { r->add_token_ids(1); }, kBad, "token_ids has 4", Embed());
  ExpectRefused([](auto* r) { r->set_token_ids(0, 512); }, kBad, "token id 512", Embed());
  ExpectRefused([](auto* r) { r->set_token_ids(0, -1); }, kBad, "token id -1", Embed());
  ExpectRefused([](auto* r) { r->mutable_spans(0)->set_first_position(1); }, kBad, "do not follow",
                Embed());
  ExpectRefused([](auto* r) { r->mutable_spans(0)->set_first_position(0xffffffff); }, kBad,
                "first_position", Embed());
  ExpectRefused([](auto* r) { r->set_operation(internal::v1::ATTENTION_OPERATION_UNSPECIFIED); },
                kBad, "operation", Embed());
  ASSERT_FALSE(Send(Embed()).has_refusal());
  RunAttentionRequest attend = Embed();
  attend.set_operation(internal::v1::ATTENTION_OPERATION_ATTEND);
  attend.mutable_key()->set_layer(1);
  EXPECT_FALSE(Send(attend, 3).has_refusal());
  ExpectRefused([](auto*) {}, kBad, "", attend, 2);
  ExpectRefused([](auto* r) { r->mutable_key()->set_layer(4); }, kBad, "layer 4", attend, 3);
  EXPECT_FALSE(Send(attend, 3).has_refusal());
}

TEST_F(AttentionServiceTest, DrainedItKeepsItsSequencesAndOpensNoMore) {
  ASSERT_EQ(Open(9, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  ASSERT_TRUE(service_->SetDrained(true).ok());
  EXPECT_TRUE(service_->Describe().worker().draining());
  EXPECT_EQ(Open(10, 20), internal::v1::REFUSAL_REASON_DRAINING);
  EXPECT_FALSE(Send(Embed()).has_refusal());
  EXPECT_EQ(service_->Describe().n_sequences(), 1);
  EXPECT_GT(service_->Describe().busy_nanos(), 0);
  ASSERT_TRUE(service_->SetDrained(false).ok());
  EXPECT_EQ(Open(10, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  service_->SetDraining();  // its process ends
  EXPECT_TRUE(absl::IsFailedPrecondition(service_->SetDrained(false)));
}

TEST_F(AttentionServiceTest, RefusesSamplingThatIsNoNumber) {
  RunAttentionRequest request = Request(internal::v1::ATTENTION_OPERATION_SEQUENCES);
  request.add_open()->set_n_positions(1);
  request.mutable_open(0)->mutable_sampling()->set_temperature(NAN);
  const RunAttentionResponse response = Send(request);
  EXPECT_EQ(response.opened(0).reason(), kBad);
  EXPECT_THAT(response.opened(0).message(), HasSubstr("temperature"));
}

TEST_F(AttentionServiceTest, SaysThatItsCacheIsFull) {
  const int n_blocks = host_->kv()->n_blocks();
  EXPECT_EQ(Open(1, 16 * n_blocks), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  EXPECT_EQ(Open(2, 1), internal::v1::REFUSAL_REASON_KV_CACHE_FULL);
}

TEST_F(AttentionServiceTest, SaysThatItDoesNotKnowASequence) {
  ExpectRefused([](auto*) {}, internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE, "sequence 9", Embed());
}

TEST_F(AttentionServiceTest, RefusesCallsMeantForAnEarlierLife) {
  ExpectRefused([](auto* r) { r->mutable_key()->set_incarnation(76); },
                internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE, "restarted", Embed());
}

TEST_F(AttentionServiceTest, FreesALanesSequencesWhenItsLastStreamEnds) {
  ASSERT_EQ(Open(9, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  std::unique_ptr<StreamSession> first = std::move(session_);
  session_ = *service_->OnOpen(nullptr);  // the same lane's bulk stream
  EXPECT_FALSE(Send(Embed()).has_refusal());
  first.reset();
  EXPECT_EQ(service_->n_sequences(), 1);
  session_.reset();
  EXPECT_EQ(service_->n_sequences(), 0);
  EXPECT_EQ(host_->kv()->n_free(), host_->kv()->n_blocks());
}

}  // namespace
}  // namespace gatefold

// The service's answers to good and hostile frames, without a network.

#include "attention-service/attention_service.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "attention-service/options.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/lent_frame.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using internal::v1::AttentionServiceRunRequest;
using internal::v1::AttentionServiceRunResponse;
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

  AttentionServiceRunRequest Request(internal::v1::AttentionOperation operation) const {
    AttentionServiceRunRequest request;
    request.mutable_key()->set_router_id(1);
    request.set_operation(operation);
    request.set_dtype(internal::v1::WIRE_DTYPE_FLOAT32);
    request.set_d_model(64);
    return request;
  }

  // Three tokens at the start of sequence 9.
  AttentionServiceRunRequest Embed() const {
    AttentionServiceRunRequest request =
        Request(internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND);
    request.set_n_rows(3);
    request.add_spans()->set_sequence_id(9);
    request.mutable_spans(0)->set_n_tokens(3);
    for (int token : {5, 6, 7}) request.add_token_ids(token);
    return request;
  }

  AttentionServiceRunResponse Send(const AttentionServiceRunRequest& request, size_t n_rows = 0) {
    PayloadBuffer rows(n_rows * 64 * sizeof(float));
    for (size_t i = 0; i < n_rows * 64; ++i) rows.as<float>()[i] = 0.01f * static_cast<float>(i);
    AttentionServiceRunResponse response;
    auto answer = session_->OnFrame(WriteFrame(request, rows), absl::Now());
    EXPECT_TRUE(answer.ok()) << answer.status();
    EXPECT_TRUE(ReadFrame(*answer, &response, &payload_).ok());
    return response;
  }

  AttentionServiceRunRequest OpenRequest(uint64_t id, uint32_t n_positions) const {
    AttentionServiceRunRequest request = Request(internal::v1::ATTENTION_OPERATION_SEQUENCES);
    internal::v1::OpenSequence* open = request.add_open();
    open->set_sequence_id(id);
    open->set_n_positions(n_positions);
    open->mutable_sampling()->set_top_p(1);
    open->mutable_sampling()->set_repetition_penalty(1);
    return request;
  }

  internal::v1::RefusalReason Open(uint64_t id, uint32_t n_positions) {
    const AttentionServiceRunResponse response = Send(OpenRequest(id, n_positions));
    EXPECT_EQ(response.opened_size(), 1);
    return response.opened(0).reason();
  }

  // Tokens 0, 1, 2, ... at positions [first, first + n) of a sequence.
  AttentionServiceRunRequest Span(uint64_t id, int first, int n,
                                  internal::v1::AttentionOperation operation =
                                      internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND) const {
    AttentionServiceRunRequest request = Request(operation);
    request.set_n_rows(n);
    internal::v1::Span* span = request.add_spans();
    span->set_sequence_id(id);
    span->set_first_position(first);
    span->set_n_tokens(n);
    if (operation == internal::v1::ATTENTION_OPERATION_EMBED_AND_ATTEND) {
      for (int i = 0; i < n; ++i) request.add_token_ids(first + i);
    }
    return request;
  }

  void ComputeInAllLayers(uint64_t id, int n) {
    EXPECT_FALSE(Send(Span(id, 0, n)).has_refusal());
    for (int layer = 1; layer < weights_->config().n_layers; ++layer) {
      AttentionServiceRunRequest attend = Span(id, 0, n, internal::v1::ATTENTION_OPERATION_ATTEND);
      attend.mutable_key()->set_layer(layer);
      EXPECT_FALSE(Send(attend, n).has_refusal());
    }
  }

  // What is cached of a sequence of tokens 0 to 39.
  uint32_t OpenCached(uint64_t id, uint64_t domain) {
    AttentionServiceRunRequest request = OpenRequest(id, 40);
    request.mutable_open(0)->set_cache_domain(domain);
    for (int i = 0; i < 39; ++i) request.mutable_open(0)->add_token_ids(i);
    request.mutable_open(0)->set_max_cached(39);
    const AttentionServiceRunResponse response = Send(request);
    EXPECT_EQ(response.n_cached_size(), 1);
    return response.n_cached_size() == 1 ? response.n_cached(0) : 0;
  }

  void ExpectRefused(const std::function<void(AttentionServiceRunRequest*)>& change,
                     internal::v1::RefusalReason reason, const std::string& message,
                     AttentionServiceRunRequest request, size_t n_rows = 0) {
    change(&request);
    const AttentionServiceRunResponse response = Send(request, n_rows);
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
  AttentionServiceRunResponse response = Send(Embed());
  ASSERT_FALSE(response.has_refusal()) << response.refusal().message();
  EXPECT_EQ(payload_.size_bytes(), 3u * 64 * sizeof(float));
  AttentionServiceRunRequest sample = Request(internal::v1::ATTENTION_OPERATION_SAMPLE);
  sample.set_n_rows(1);
  sample.add_samples()->set_sequence_id(9);
  sample.mutable_samples(0)->set_position(2);
  response = Send(sample, 1);
  ASSERT_FALSE(response.has_refusal()) << response.refusal().message();
  EXPECT_EQ(response.sampled_size(), 1);
  const uint32_t n_free = response.n_kv_blocks_free();
  AttentionServiceRunRequest close = Request(internal::v1::ATTENTION_OPERATION_SEQUENCES);
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
  AttentionServiceRunRequest attend = Embed();
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
  EXPECT_FALSE(service_->Describe().worker().ending());
  service_->SetDraining();  // its process ends
  EXPECT_TRUE(service_->Describe().worker().draining());
  EXPECT_TRUE(service_->Describe().worker().ending());
  EXPECT_TRUE(absl::IsFailedPrecondition(service_->SetDrained(false)));
}

TEST_F(AttentionServiceTest, RefusesSamplingThatIsNoNumber) {
  AttentionServiceRunRequest request = Request(internal::v1::ATTENTION_OPERATION_SEQUENCES);
  request.add_open()->set_n_positions(1);
  request.mutable_open(0)->mutable_sampling()->set_temperature(NAN);
  const AttentionServiceRunResponse response = Send(request);
  EXPECT_EQ(response.opened(0).reason(), kBad);
  EXPECT_THAT(response.opened(0).message(), HasSubstr("temperature"));
}

// A router lets requests have them, and attention in its own process draws with them.
TEST_F(AttentionServiceTest, TakesTheSmallestRepetitionPenaltyAndNotZero) {
  const std::pair<float, internal::v1::RefusalReason> expected[] = {
      {std::numeric_limits<float>::denorm_min(), internal::v1::REFUSAL_REASON_UNSPECIFIED},
      {0.0f, kBad}};
  for (const auto& [penalty, reason] : expected) {
    AttentionServiceRunRequest request = OpenRequest(1, 16);
    request.mutable_open(0)->mutable_sampling()->set_repetition_penalty(penalty);
    EXPECT_EQ(Send(request).opened(0).reason(), reason) << penalty;
  }
}

TEST_F(AttentionServiceTest, SaysThatItsCacheIsFull) {
  const int n_blocks = host_->cache()->n_blocks();
  EXPECT_EQ(Open(1, 16 * n_blocks), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  EXPECT_EQ(Open(2, 1), internal::v1::REFUSAL_REASON_KV_CACHE_FULL);
}

TEST_F(AttentionServiceTest, NamesTheSequencesThatFoundNoBlock) {
  AttentionServiceRunRequest open = OpenRequest(1, 200);
  open.mutable_open(0)->set_n_reserved(16);
  ASSERT_EQ(Send(open).opened(0).reason(), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  ASSERT_FALSE(Send(Span(1, 0, 16)).has_refusal());
  ASSERT_FALSE(Send(Span(1, 16, 1)).has_refusal());  // took its second block
  ASSERT_EQ(Open(2, 16 * (host_->cache()->n_blocks() - 2)),
            internal::v1::REFUSAL_REASON_UNSPECIFIED);
  AttentionServiceRunRequest both = Span(2, 0, 3);
  both.set_n_rows(19);
  both.mutable_spans()->MergeFrom(Span(1, 17, 16).spans());
  for (int i = 0; i < 16; ++i) both.add_token_ids(5);
  const AttentionServiceRunResponse refused = Send(both);
  EXPECT_EQ(refused.refusal().reason(), internal::v1::REFUSAL_REASON_KV_CACHE_FULL);
  EXPECT_THAT(refused.starved(), testing::ElementsAre(1));
  EXPECT_FALSE(Send(Span(2, 0, 3)).has_refusal());
  AttentionServiceRunRequest again = Span(1, 17, 16);
  again.add_close(2);
  EXPECT_FALSE(Send(again).has_refusal());
}

TEST_F(AttentionServiceTest, KeepsWhatItComputedForOthersOfTheDomain) {
  EXPECT_EQ(OpenCached(1, 5), 0u);
  ComputeInAllLayers(1, 40);
  EXPECT_EQ(OpenCached(2, 5), 32u);
  EXPECT_EQ(OpenCached(3, 6), 0u);
  EXPECT_EQ(OpenCached(4, 0), 0u);
  EXPECT_FALSE(Send(Span(2, 32, 8)).has_refusal());  // goes on where the cache ends
}

TEST_F(AttentionServiceTest, ProtectsSharedBlocksFromOtherTokens) {
  OpenCached(1, 5);
  ComputeInAllLayers(1, 40);
  ExpectRefused([](auto* r) { r->set_token_ids(7, 99); }, kBad, "token id 99 at position 7",
                Span(1, 0, 8));
  EXPECT_FALSE(Send(Span(1, 0, 8)).has_refusal());  // the same again is fine
  AttentionServiceRunRequest twice = Span(1, 0, 8);
  twice.MergeFrom(Span(1, 0, 8));
  twice.set_n_rows(16);
  ExpectRefused([](auto*) {}, kBad, "spans has sequence 1 twice", twice);
  twice.set_operation(internal::v1::ATTENTION_OPERATION_ATTEND);
  twice.mutable_key()->set_layer(1);
  ExpectRefused([](auto*) {}, kBad, "spans has sequence 1 twice", twice, 16);
}

TEST_F(AttentionServiceTest, KeepsNothingOfAFrameThatIsAnswered) {
  ASSERT_EQ(Open(9, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  ASSERT_FALSE(Send(Embed()).has_refusal());
  AttentionServiceRunRequest request = Span(9, 0, 3, internal::v1::ATTENTION_OPERATION_ATTEND);
  PayloadBuffer rows(3 * 64 * sizeof(float));
  std::fill_n(rows.as<float>(), 3 * 64, 0.5f);
  LentFrame lent(request, rows);
  EXPECT_TRUE(session_->OnFrame(lent.frame(), absl::Now()).ok());
  EXPECT_TRUE(lent.IsGivenBack());
}

TEST_F(AttentionServiceTest, SaysThatItDoesNotKnowASequence) {
  ExpectRefused([](auto*) {}, internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE, "sequence 9", Embed());
}

TEST_F(AttentionServiceTest, RefusesCallsMeantForAnEarlierLife) {
  ExpectRefused([](auto* r) { r->mutable_key()->set_incarnation(76); },
                internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE, "restarted", Embed());
}

TEST_F(AttentionServiceTest, SaysThatItDrainsAndOpensNoMore) {
  ASSERT_EQ(Open(9, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  EXPECT_FALSE(Send(Embed()).draining());
  service_->SetDraining();
  const AttentionServiceRunResponse response = Send(Embed());  // what it has goes on
  EXPECT_FALSE(response.has_refusal());
  EXPECT_TRUE(response.draining());
  EXPECT_EQ(Open(10, 20), internal::v1::REFUSAL_REASON_DRAINING);
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
  EXPECT_EQ(host_->cache()->n_available(), host_->cache()->n_blocks());
}

// The router knows that a stream has ended, and the service does not yet.
TEST_F(AttentionServiceTest, FreesWhatALaneHadBeforeItCameAgain) {
  ASSERT_EQ(Open(9, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  std::unique_ptr<StreamSession> before = std::move(session_);
  session_ = *service_->OnOpen(nullptr);
  AttentionServiceRunRequest again = OpenRequest(9, 20);
  again.mutable_key()->set_generation(1);
  EXPECT_EQ(Send(again).opened(0).reason(), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  EXPECT_EQ(service_->n_sequences(), 1);
  AttentionServiceRunRequest embed = Embed();
  embed.mutable_key()->set_generation(1);
  EXPECT_FALSE(Send(embed).has_refusal());
  // What is still under way on the stream before, and one that comes late, know nothing.
  std::swap(before, session_);
  EXPECT_EQ(Send(Embed()).refusal().reason(), internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE);
  session_ = *service_->OnOpen(nullptr);
  EXPECT_EQ(Send(Embed()).refusal().reason(), internal::v1::REFUSAL_REASON_UNKNOWN_SEQUENCE);
  session_.reset();
  EXPECT_EQ(service_->n_sequences(), 1);
  before.reset();
  EXPECT_EQ(service_->n_sequences(), 0);
  EXPECT_EQ(host_->cache()->n_available(), host_->cache()->n_blocks());
}

// A prompt comes twice: to open its sequence, which takes no time, and to be computed.
TEST_F(AttentionServiceTest, TellsKindsOfWorkApart) {
  const auto kind = [&](const AttentionServiceRunRequest& request, size_t n_rows = 0) {
    return session_->KindOf(WriteFrame(request, PayloadBuffer(n_rows * 64 * sizeof(float))));
  };
  AttentionServiceRunRequest open = OpenRequest(9, 300);
  for (int i = 0; i < 300; ++i) open.mutable_open(0)->add_token_ids(i);
  const int embed = kind(Span(9, 0, 300));
  EXPECT_NE(kind(open), embed);
  EXPECT_EQ(kind(Span(9, 0, 280)), embed);
  EXPECT_NE(kind(Span(9, 0, 1)), embed);
  EXPECT_NE(kind(Span(9, 0, 300, internal::v1::ATTENTION_OPERATION_ATTEND), 300), embed);
  AttentionServiceRunRequest hostile = Span(9, 0, 300);
  hostile.set_n_rows(0xffffffff);
  hostile.set_operation(static_cast<internal::v1::AttentionOperation>(0x7fffffff));
  EXPECT_LT(kind(hostile), StreamSession::kKinds);
  hostile.set_operation(static_cast<internal::v1::AttentionOperation>(-1));
  EXPECT_LT(kind(hostile), StreamSession::kKinds);
  grpc::Slice noise(std::string(100, '\xff'));
  EXPECT_LT(session_->KindOf(grpc::ByteBuffer(&noise, 1)), StreamSession::kKinds);
}

// Its rotations are computed up to there and no further, whatever the KV blocks could hold.
TEST_F(AttentionServiceTest, RefusesSequencesLongerThanItTakes) {
  const auto host = *AttentionHost::Load(
      *weights_, {.kv_memory_bytes = 256 << 10, .max_sequence_tokens = 20}, &threads_, nullptr);
  AttentionService service(host.get(), internal::v1::WorkerDescription(), nullptr);
  session_ = *service.OnOpen(nullptr);
  EXPECT_EQ(Open(1, 20), internal::v1::REFUSAL_REASON_UNSPECIFIED);
  EXPECT_EQ(Open(2, 21), internal::v1::REFUSAL_REASON_BAD_REQUEST);
  session_.reset();
}

TEST(AttentionServiceOptionsTest, NameTheFlagThatCannotBe) {
  AttentionServiceOptions options;
  options.worker.model_dir = "somewhere";
  options.worker.listen = "unix:/x";
  EXPECT_TRUE(options.Validate().ok()) << options.Validate();
  options.wait = "patiently";
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("\"patiently\""));
  options.wait = "block";
  options.worker.listen = "127.0.0.1";
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("the port is missing"));
  options.worker.listen = "unix:/x";
  options.drain_limit = absl::Seconds(-5);
  EXPECT_EQ(options.Validate().message(), "--drain-limit is -5s, must not be negative");
  options.drain_limit = absl::ZeroDuration();
  options.host.max_sequence_tokens = -4;
  EXPECT_EQ(options.Validate().message(), "--max-sequence-tokens is -4, must not be negative");
}

}  // namespace
}  // namespace gatefold

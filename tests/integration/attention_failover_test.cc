// Attention-services come to an end, or to the end of their memory, under sixteen streams; the
// tokens are those of the quiet run.

#include <signal.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

using Kind = ShapeOptions::Kind;

constexpr char kModel[] = "tests/golden/mixtral/bf16";
constexpr int kStreams = 16;
constexpr int kOutput = 200;

inference::v1::StreamGenerateTextRequest Request(int stream) {
  inference::v1::StreamGenerateTextRequest request;
  inference::v1::GenerateTextRequest* generate = request.mutable_request();
  for (int i = 0; i < 20 + 5 * stream; ++i) {
    generate->mutable_prompt()->mutable_token_ids()->add_ids((37 * stream + 11 * i) % 512);
  }
  generate->mutable_config()->set_max_output_tokens(kOutput);
  generate->mutable_config()->set_temperature(stream % 2 == 0 ? 1.0f : 0.0f);
  generate->mutable_config()->set_repetition_penalty(1.1f);
  generate->mutable_config()->set_seed(stream);
  generate->mutable_config()->set_ignore_eos(true);
  generate->mutable_output()->set_token_ids(true);
  return request;
}

// Empty after a failure. Counts tokens as they come.
std::vector<int32_t> Generate(Client* client, int stream, std::atomic<int>* n_tokens = nullptr) {
  grpc::ClientContext context;
  auto events = client->stub()->StreamGenerateText(&context, Request(stream));
  std::vector<int32_t> tokens;
  inference::v1::StreamGenerateTextResponse event;
  while (events->Read(&event)) {
    const auto& ids = event.delta().token_ids();
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    if (n_tokens != nullptr) *n_tokens += ids.size();
  }
  const grpc::Status status = events->Finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  return status.ok() ? tokens : std::vector<int32_t>();
}

std::vector<std::vector<int32_t>> QuietTokens() {
  ShapeOptions options;
  options.prefix_cache = false;
  auto shape = Shape::Start(kModel, options);
  EXPECT_TRUE(shape.ok()) << shape.status();
  Client client((*shape)->channel());
  std::vector<std::vector<int32_t>> quiet;
  for (int i = 0; i < kStreams; ++i) {
    quiet.push_back(Generate(&client, i));
    EXPECT_EQ(quiet.back().size(), static_cast<size_t>(kOutput));
  }
  return quiet;
}

class AttentionFailoverTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { quiet_ = new std::vector<std::vector<int32_t>>(QuietTokens()); }
  static void TearDownTestSuite() { delete quiet_; }

  void Start(int n_attention, int n_lanes, const std::string& kv_memory = "64MiB") {
    ShapeOptions options;
    options.kind = Kind::kCluster;
    options.n_attention = n_attention;
    options.n_lanes = n_lanes;
    options.kv_memory = kv_memory;
    auto shape = Shape::Start(kModel, options);
    ASSERT_TRUE(shape.ok()) << shape.status();
    shape_ = *std::move(shape);
    // A router is ready with one; here it is to have seen all.
    for (int i = 0; i < n_attention; ++i) {
      while (!absl::StrContains(shape_->router()->Log(),
                                absl::StrCat("attention-", i,
                                             " kind=attention from=unreachable "
                                             "to=ready"))) {
        absl::SleepFor(absl::Milliseconds(2));
      }
    }
  }

  // Sixteen streams, again and again until `enough` (once, if it is null). All of them have the
  // quiet run's tokens.
  void StartStreams(std::atomic<bool>* enough = nullptr) {
    for (int i = 0; i < kStreams; ++i) {
      streams_.emplace_back([this, i, enough] {
        Client client(shape_->channel());
        do {
          EXPECT_EQ(Generate(&client, i, &n_tokens_), (*quiet_)[i]) << "stream " << i;
        } while (enough != nullptr && !*enough && !HasFailure());
      });
    }
  }
  void AwaitTokens(int n) {
    while (n_tokens_ < n && !HasFailure()) absl::SleepFor(absl::Milliseconds(1));
  }
  void JoinStreams() {
    for (std::thread& stream : streams_) stream.join();
    streams_.clear();
  }

  static std::vector<std::vector<int32_t>>* quiet_;
  std::unique_ptr<Shape> shape_;
  std::atomic<int> n_tokens_ = 0;
  std::vector<std::thread> streams_;
};

std::vector<std::vector<int32_t>>* AttentionFailoverTest::quiet_ = nullptr;

TEST_F(AttentionFailoverTest, KillingOneOfTwoComputesItsSequencesAgainAndNoOthers) {
  for (int n_lanes : {1, 2}) {
    for (int victim : {0, 1}) {
      SCOPED_TRACE(absl::StrCat(n_lanes, " lanes, victim ", victim));
      n_tokens_ = 0;
      Start(2, n_lanes);
      if (HasFatalFailure()) return;
      StartStreams();
      AwaitTokens(kStreams * 10);
      shape_->attention(victim)->Signal(SIGKILL);
      JoinStreams();
      // A step that failed names how many of its sequences were on the dead one: some, not all.
      const std::string log = shape_->router()->Log();
      EXPECT_TRUE(absl::StrContains(log, "step_failed")) << log;
      EXPECT_FALSE(absl::StrContains(log, absl::StrCat("sequences=", kStreams / n_lanes, " ")))
          << log;
    }
  }
}

// The router notices first that its connections are gone, and comes again to a service that still
// has all sequences on them.
TEST_F(AttentionFailoverTest, WhatAConnectionLeftBehindIsFreedWhenItsLaneComesAgain) {
  ShapeOptions options;
  options.kind = Kind::kCluster;
  options.proxied_attention = true;
  auto shape = Shape::Start(kModel, options);
  ASSERT_TRUE(shape.ok()) << shape.status();
  shape_ = *std::move(shape);
  StartStreams();
  AwaitTokens(kStreams * 10);
  shape_->attention_proxy()->SetMode(FaultProxy::Mode::kHalfCut);
  JoinStreams();
  EXPECT_TRUE(absl::StrContains(shape_->router()->Log(), "step_failed"));
  const auto cluster = cluster::v1::ClusterService::NewStub(shape_->channel());
  const auto n_sequences = [&] {
    grpc::ClientContext context;
    cluster::v1::ListWorkersResponse workers;
    EXPECT_TRUE(cluster->ListWorkers(&context, {}, &workers).ok());
    uint32_t n = 0;
    for (const auto& worker : workers.workers()) n += worker.n_sequences();
    return n;
  };
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (n_sequences() > 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(n_sequences(), 0);
}

TEST_F(AttentionFailoverTest, ADrainedServiceHandsItsSequencesOverAndExitsByItself) {
  Start(2, 1);
  if (HasFatalFailure()) return;
  std::atomic<bool> enough = false;
  StartStreams(&enough);
  AwaitTokens(kStreams * 10);
  shape_->attention(0)->Signal(SIGTERM);
  // Well before the 30 seconds after which it would go anyway.
  const auto exit_code = shape_->attention(0)->Wait(absl::Now() + absl::Seconds(20));
  enough = true;
  JoinStreams();
  ASSERT_TRUE(exit_code.ok()) << exit_code.status();
  EXPECT_EQ(*exit_code, 0);
  EXPECT_TRUE(absl::StrContains(shape_->router()->Log(), "which drains"));
}

TEST_F(AttentionFailoverTest, AServiceThatHangsIsLeft) {
  Start(2, 1);
  if (HasFatalFailure()) return;
  StartStreams();
  AwaitTokens(kStreams * 10);
  shape_->attention(0)->Signal(SIGSTOP);
  JoinStreams();
  EXPECT_TRUE(absl::StrContains(shape_->router()->Log(), "does not answer"));
}

TEST_F(AttentionFailoverTest, SequencesGiveWayWhenKvBlocksRunOut) {
  for (int n_lanes : {1, 2}) {
    SCOPED_TRACE(n_lanes);
    n_tokens_ = 0;
    Start(1, n_lanes, "512KiB");  // 32 blocks, of which every stream needs 14 to 19
    if (HasFatalFailure()) return;
    StartStreams();
    JoinStreams();
    EXPECT_TRUE(absl::StrContains(shape_->router()->Log(), "sequence_preempted"));
  }
}

}  // namespace
}  // namespace gatefold

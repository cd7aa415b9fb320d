// Expert-services come and go while requests run; a planner says who holds what. No request notices.

#include <signal.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr char kModel[] = "tests/golden/mixtral/bf16";
constexpr int kExperts = 4 * 8;  // of the model, all layers
constexpr int kOutput = 100;
constexpr int kStreams = 16;

struct Answer {
  std::vector<int32_t> tokens;
  grpc::Status status;
};

// Each stream has a prompt and a seed of its own.
Answer Generate(Client* client, int stream) {
  inference::v1::GenerateTextRequest request;
  for (int token : {1, 5 + stream, 9, 20}) {
    request.mutable_prompt()->mutable_token_ids()->add_ids(token);
  }
  request.mutable_config()->set_max_output_tokens(kOutput);
  request.mutable_config()->set_temperature(1);
  request.mutable_config()->set_seed(static_cast<uint64_t>(stream));
  request.mutable_config()->set_ignore_eos(true);
  request.mutable_output()->set_token_ids(true);
  grpc::ClientContext context;
  inference::v1::GenerateTextResponse response;
  Answer answer;
  answer.status = client->stub()->GenerateText(&context, request, &response);
  if (response.candidates_size() == 1) {
    const auto& ids = response.candidates(0).token_ids();
    answer.tokens.assign(ids.begin(), ids.end());
  }
  return answer;
}

class ElasticityTest : public testing::Test {
 protected:
  void SetUp() override {
    auto quiet = Shape::Start(kModel, ShapeOptions());
    ASSERT_TRUE(quiet.ok()) << quiet.status();
    Client client((*quiet)->channel());
    for (int i = 0; i < kStreams; ++i) {
      Answer answer = Generate(&client, i);
      ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
      ASSERT_EQ(answer.tokens.size(), static_cast<size_t>(kOutput));
      quiet_.push_back(std::move(answer.tokens));
    }
  }
  void TearDown() override { StopLoad(); }

  void Start(int n_started, int n_shards, const std::string& router_flag) {
    ShapeOptions options;
    options.kind = ShapeOptions::Kind::kCluster;
    options.experts.assign(n_shards, "none");
    options.n_started = n_started;
    options.router_flags = {"--planner=on", router_flag};
    auto shape = Shape::Start(kModel, options);
    ASSERT_TRUE(shape.ok()) << shape.status();
    shape_ = *std::move(shape);
    client_ = std::make_unique<Client>(shape_->channel());
    cluster_ = cluster::v1::ClusterService::NewStub(shape_->channel());
  }

  // Streams that start again whenever they end, each compared with the quiet run.
  void StartLoad() {
    for (int i = 0; i < kStreams; ++i) {
      streams_.emplace_back([this, i] {
        while (!stopping_) {
          const Answer answer = Generate(client_.get(), i);
          EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
          EXPECT_EQ(answer.tokens, quiet_[i]) << "stream " << i;
          ++n_answers_;
        }
      });
    }
    AwaitAnswers(kStreams);
  }
  void StopLoad() {
    stopping_ = true;
    for (std::thread& stream : streams_) stream.join();
    streams_.clear();
  }
  void AwaitAnswers(int n) {
    const int until = n_answers_ + n;
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (n_answers_ < until && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
    EXPECT_GE(n_answers_, until);
  }

  // Experts that each shard holds; -1: it is not ready.
  std::vector<int> Held() {
    grpc::ClientContext context;
    cluster::v1::ListWorkersResponse response;
    std::vector<int> held;
    if (!cluster_->ListWorkers(&context, {}, &response).ok()) return held;
    for (const auto& worker : response.workers()) {
      if (worker.kind() != cluster::v1::WORKER_KIND_EXPERT) continue;
      const bool ready = worker.state() == cluster::v1::WORKER_STATE_READY;
      held.push_back(ready ? static_cast<int>(worker.n_experts()) : -1);
    }
    return held;
  }
  // Until the first `n` shards share all experts evenly and the others are gone or were never there.
  bool AwaitEven(int n, int replicas = 1) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    std::vector<int> held;
    while (absl::Now() < deadline) {
      held = Held();
      bool even = static_cast<int>(held.size()) >= n;
      int sum = 0;
      for (size_t i = 0; even && i < held.size(); ++i) {
        const bool member = static_cast<int>(i) < n;
        if (member) sum += held[i];
        even = member ? held[i] >= replicas * kExperts / n - 2 : held[i] <= 0;
      }
      if (even && sum == replicas * kExperts) return true;
      absl::SleepFor(absl::Milliseconds(20));
    }
    ADD_FAILURE() << "held: " << testing::PrintToString(held);
    return false;
  }

  std::vector<std::vector<int32_t>> quiet_;
  std::unique_ptr<Shape> shape_;
  std::unique_ptr<Client> client_;
  std::unique_ptr<cluster::v1::ClusterService::Stub> cluster_;
  std::vector<std::thread> streams_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> n_answers_ = 0;
};

TEST_F(ElasticityTest, FromTwoShardsToFiveAndBackUnderLoad) {
  Start(2, 5, "--min-replicas=1");
  ASSERT_TRUE(AwaitEven(2));
  StartLoad();
  ASSERT_TRUE(shape_->StartExpert(2).ok());
  ASSERT_TRUE(AwaitEven(3));
  ASSERT_TRUE(shape_->StartExpert(3).ok());
  ASSERT_TRUE(shape_->StartExpert(4).ok());
  ASSERT_TRUE(AwaitEven(5));
  AwaitAnswers(kStreams);
  shape_->expert(4)->Signal(SIGTERM);
  ASSERT_TRUE(AwaitEven(4));
  shape_->expert(3)->Signal(SIGTERM);
  shape_->expert(2)->Signal(SIGTERM);
  ASSERT_TRUE(AwaitEven(2));
  for (int i : {2, 3, 4}) {
    const auto exit_code = shape_->expert(i)->Wait(absl::Now() + absl::Seconds(30));
    ASSERT_TRUE(exit_code.ok()) << exit_code.status();
    EXPECT_EQ(*exit_code, 0);
  }
  AwaitAnswers(kStreams);
  StopLoad();
}

TEST_F(ElasticityTest, WhatADeadShardHeldIsLoadedElsewhere) {
  Start(3, 3, "--min-replicas=1");
  ASSERT_TRUE(AwaitEven(3));
  StartLoad();
  shape_->expert(2)->Signal(SIGKILL);
  ASSERT_TRUE(AwaitEven(2));
  AwaitAnswers(kStreams);
  StopLoad();
}

TEST_F(ElasticityTest, ReplicasAreMadeAgainWhenOneDies) {
  Start(3, 3, "--min-replicas=2");
  ASSERT_TRUE(AwaitEven(3, 2));
  StartLoad();
  shape_->expert(2)->Signal(SIGKILL);
  ASSERT_TRUE(AwaitEven(2, 2));
  AwaitAnswers(kStreams);
  StopLoad();
}

}  // namespace
}  // namespace gatefold

// An expert that no live shard holds: what the caller, the log and the metrics say, by policy.

#include <signal.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/rpc/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/metrics_page.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

constexpr char kModel[] = "tests/golden/mixtral/bf16";
constexpr char kDense[] = "tests/golden/llama/f32";
constexpr char kAllButOne[] = "*:0-6", kOne[] = "*:7-7";

class MissingExpertTest : public testing::Test {
 protected:
  absl::Status Start(const std::string& model, const std::string& policy,
                     std::vector<std::string> experts = {"0/2", "1/2"}) {
    ShapeOptions options;
    options.kind = ShapeOptions::Kind::kCluster;
    options.experts = std::move(experts);
    options.router_flags = {"--on-missing-expert=" + policy};
    options.metrics = true;
    auto shape = Shape::Start(model, options);
    if (!shape.ok()) return shape.status();
    shape_ = *std::move(shape);
    client_ = std::make_unique<Client>(shape_->channel());
    return absl::OkStatus();
  }

  absl::Status Generate(absl::Duration time) {
    inference::v1::GenerateTextRequest request;
    for (int token : {1, 5, 9, 20}) request.mutable_prompt()->mutable_token_ids()->add_ids(token);
    request.mutable_config()->set_max_output_tokens(20);
    request.mutable_config()->set_temperature(0);
    request.mutable_config()->set_ignore_eos(true);
    request.mutable_output()->set_token_ids(true);
    request.mutable_output()->set_routing_trace(true);
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + time));
    response_.Clear();
    return FromGrpcStatus(client_->stub()->GenerateText(&context, request, &response_));
  }
  void LoseShard(int i = 1) {
    shape_->expert(i)->Signal(SIGKILL);
    ASSERT_TRUE(shape_->expert(i)->Wait(absl::Now() + absl::Seconds(20)).ok());
  }
  bool Await(const std::function<bool()>& done) {
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (!done()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return true;
  }
  bool AwaitWaiting() {
    return Await([&] { return Metric("gatefold_requests_waiting_for_expert") == 1; });
  }
  double Metric(const std::string& name) {
    const auto page = MetricsPage::Fetch(shape_->router());
    EXPECT_TRUE(page.ok()) << page.status();
    return page.ok() ? page->Sum(name) : 0;
  }

  std::unique_ptr<Shape> shape_;
  std::unique_ptr<Client> client_;
  inference::v1::GenerateTextResponse response_;
};

TEST_F(MissingExpertTest, AWaitIsSeenAndItsEndNamesTheExpertAndItsLastHolder) {
  ASSERT_TRUE(Start(kModel, "wait").ok());
  LoseShard();
  absl::Status status;
  std::thread request([&] { status = Generate(absl::Seconds(4)); });
  EXPECT_TRUE(AwaitWaiting());
  EXPECT_TRUE(shape_->router()->Log().find("waiting_for_expert") != std::string::npos);
  request.join();
  // Its id is the router's own, for it has none of its caller's.
  EXPECT_TRUE(shape_->router()->Log().find("request_id=\"\"") == std::string::npos);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_EQ(ReasonOf(status), kExpertUnavailable);
  EXPECT_GT(RetryDelayOf(status), absl::ZeroDuration());
  EXPECT_THAT(std::string(status.message()), HasSubstr(shape_->expert_address(1)));
  EXPECT_THAT(std::string(status.message()), HasSubstr("of layer"));
}

TEST_F(MissingExpertTest, AWaitEndsWhenTheExpertIsBack) {
  ASSERT_TRUE(Start(kModel, "wait").ok());
  ASSERT_TRUE(Generate(absl::Minutes(1)).ok());
  const auto quiet = response_;
  LoseShard();
  std::thread request([&] {
    const absl::Status status = Generate(absl::Minutes(1));
    EXPECT_TRUE(status.ok()) << status;
  });
  EXPECT_TRUE(AwaitWaiting());
  const auto logged = [this](const char* text) {
    return Await([&] { return absl::StrContains(shape_->router()->Log(), text); });
  };
  EXPECT_TRUE(logged("experts_uncovered coverage=0.5 experts=0:"));
  EXPECT_TRUE(shape_->expert(1)->Restart().ok());
  request.join();
  EXPECT_TRUE(logged("experts_covered coverage=1"));
  EXPECT_EQ(response_.candidates(0).SerializeAsString(), quiet.candidates(0).SerializeAsString());
  EXPECT_EQ(response_.summary().degraded_tokens(), 0u);
}

TEST_F(MissingExpertTest, ARequestMayFailAtOnce) {
  ASSERT_TRUE(Start(kModel, "fail").ok());
  ASSERT_TRUE(Generate(absl::Minutes(1)).ok());
  LoseShard();
  const absl::Time start = absl::Now();
  const absl::Status status = Generate(absl::Minutes(1));
  EXPECT_EQ(ReasonOf(status), kExpertUnavailable) << status;
  EXPECT_LT(absl::Now() - start, absl::Seconds(20));
}

TEST_F(MissingExpertTest, ARequestMayGoOnWithoutItAndSaysSo) {
  // A row visits two experts and can lose one.
  ASSERT_TRUE(Start(kModel, "renormalise", {kAllButOne, kOne}).ok());
  ASSERT_TRUE(Generate(absl::Minutes(1)).ok());
  EXPECT_EQ(response_.summary().degraded_tokens(), 0u);
  LoseShard();
  const absl::Status status = Generate(absl::Minutes(1));
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_GT(response_.summary().degraded_tokens(), 0u);
  EXPECT_GT(Metric("gatefold_router_degraded_rows_total"), 0);
  const auto& names = response_.candidates(0).routing_trace().shard_names();
  EXPECT_THAT(std::vector<std::string>(names.begin(), names.end()), testing::Contains("none"));
  EXPECT_TRUE(shape_->router()->Log().find("degraded_tokens=") != std::string::npos);
}

TEST_F(MissingExpertTest, ARowWithoutAnyExpertGoesOnOnceOneIsBack) {
  for (int back : {1, 2}) {
    ASSERT_TRUE(Start(kModel, "renormalise", {"*:0-5", "*:6-6", "*:7-7"}).ok());
    LoseShard(1);
    LoseShard(2);
    ASSERT_TRUE(Await([&] { return Metric("gatefold_router_coverage_ratio") == 6.0 / 8; }));
    absl::Status status;
    std::thread request([&] { status = Generate(absl::Seconds(20)); });
    EXPECT_TRUE(AwaitWaiting());
    EXPECT_TRUE(shape_->expert(back)->Restart().ok());
    request.join();
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_GT(response_.summary().degraded_tokens(), 0u);
  }
}

TEST_F(MissingExpertTest, ADenseModelCannotGoOnWithoutASlice) {
  const absl::Status status = Start(kDense, "renormalise");
  EXPECT_THAT(std::string(status.message()), HasSubstr("the model is dense"));
}

}  // namespace
}  // namespace gatefold

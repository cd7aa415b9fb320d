// A caller's trace, and the log in which it shows.

#include <cstdlib>
#include <set>
#include <sstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

constexpr char kModel[] = "tests/golden/mixtral/bf16";
constexpr char kTrace[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

class TracingTest : public testing::Test {
 protected:
  void SetUp() override {
    setenv("GATEFOLD_LOG_FORMAT", "json", 1);
    setenv("GATEFOLD_LOG_LEVEL", "debug", 1);
    ShapeOptions options;
    options.kind = ShapeOptions::Kind::kCluster;
    auto shape = Shape::Start(kModel, options);
    unsetenv("GATEFOLD_LOG_FORMAT");
    unsetenv("GATEFOLD_LOG_LEVEL");
    ASSERT_TRUE(shape.ok()) << shape.status();
    shape_ = *std::move(shape);
    client_ = std::make_unique<Client>(shape_->channel());
  }

  void Generate(const std::string& traceparent) {
    grpc::ClientContext context;
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    inference::v1::GenerateTextRequest request;
    request.mutable_prompt()->mutable_token_ids()->add_ids(3);
    request.mutable_config()->set_max_output_tokens(2);
    inference::v1::GenerateTextResponse response;
    ASSERT_TRUE(client_->stub()->GenerateText(&context, request, &response).ok());
  }

  // What the process has logged with a trace, by event; all that is no output is JSON.
  static std::set<std::string> Traced(const Process& process, const std::string& traceparent) {
    std::set<std::string> events;
    std::istringstream log(process.Log());
    for (std::string line; std::getline(log, line);) {
      const bool is_output = line == "ready" || absl::StartsWith(line, "listening on ") ||
                             absl::StartsWith(line, "metrics on ");
      if (is_output) continue;
      const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
      EXPECT_TRUE(object.is_object()) << line;
      if (object.is_object() && object.value("traceparent", "") == traceparent) {
        events.insert(object.value("event", ""));
      }
    }
    return events;
  }

  std::unique_ptr<Shape> shape_;
  std::unique_ptr<Client> client_;
};

TEST_F(TracingTest, ATraceIsInTheLogOfAllWhoComputed) {
  Generate(kTrace);
  using testing::ElementsAre;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  while (!absl::StrContains(shape_->router()->Log(), "request_ended") && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_THAT(Traced(*shape_->router(), kTrace), ElementsAre("request_ended", "step_done"));
  EXPECT_THAT(Traced(*shape_->attention(), kTrace), ElementsAre("attention_run"));
  EXPECT_THAT(Traced(*shape_->expert(0), kTrace), ElementsAre("experts_run"));
  EXPECT_THAT(Traced(*shape_->expert(1), kTrace), ElementsAre("experts_run"));
}

TEST_F(TracingTest, WhatIsNoTraceIsPassedOnToNobody) {
  Generate("");
  Generate("00-made-up-01");
  EXPECT_THAT(shape_->router()->Log(), Not(HasSubstr("made-up")));
  EXPECT_THAT(shape_->attention()->Log(), Not(HasSubstr("attention_run")));
  EXPECT_THAT(shape_->expert(0)->Log(), Not(HasSubstr("experts_run")));
}

TEST_F(TracingTest, TheLogBeginsWithTheOptions) {
  for (const Process* process : {shape_->router(), shape_->attention(), shape_->expert(0)}) {
    EXPECT_THAT(process->Log(), HasSubstr("\"event\":\"options\""));
    EXPECT_THAT(process->Log(), HasSubstr("\"log-format\":\"json\""));
    EXPECT_THAT(process->Log(), HasSubstr("\"drain-limit\":"));
  }
}

TEST_F(TracingTest, AFlagThatIsNoneIsNamed) {
  const TemporaryFolder folder;
  const auto process = Process::Start("expert-service", {"--log-format=xml"}, folder.Path("log"));
  ASSERT_TRUE(process.ok());
  EXPECT_EQ(*(*process)->Wait(absl::Now() + absl::Seconds(20)), 2);
  EXPECT_THAT((*process)->Log(), HasSubstr("must be one of text, json"));
  const auto serve = Process::Start("gatefold", {"serve", "--model=x", "--log-level=loud"},
                                    folder.Path("serve.log"));
  ASSERT_TRUE(serve.ok());
  EXPECT_EQ(*(*serve)->Wait(absl::Now() + absl::Seconds(20)), 2);
  EXPECT_THAT((*serve)->Log(), HasSubstr("must be one of debug, info, warning, error"));
}

}  // namespace
}  // namespace gatefold

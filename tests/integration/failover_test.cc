// A service dies in the middle of a stream; the tokens are those of the quiet run.

#include <signal.h>

#include <functional>
#include <memory>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr char kModel[] = "tests/golden/mixtral/bf16";
constexpr int kOutput = 300;

// Streams a greedy generation and calls `midway` after the tenth token.
std::vector<int32_t> Stream(Client* client, const std::function<void()>& midway,
                            grpc::Status* status) {
  inference::v1::StreamGenerateTextRequest request;
  inference::v1::GenerateTextRequest* generate = request.mutable_request();
  for (int token : {1, 5, 9, 20}) generate->mutable_prompt()->mutable_token_ids()->add_ids(token);
  generate->mutable_config()->set_max_output_tokens(kOutput);
  generate->mutable_config()->set_temperature(0);
  generate->mutable_config()->set_ignore_eos(true);
  generate->mutable_output()->set_token_ids(true);
  grpc::ClientContext context;
  auto stream = client->stub()->StreamGenerateText(&context, request);
  std::vector<int32_t> tokens;
  bool told = false;
  inference::v1::StreamGenerateTextResponse event;
  while (stream->Read(&event)) {
    const auto& ids = event.delta().token_ids();
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    if (!told && tokens.size() >= 10) {
      told = true;
      midway();
    }
  }
  *status = stream->Finish();
  return tokens;
}

std::vector<int32_t> QuietTokens() {
  auto shape = Shape::Start(kModel, ShapeOptions());
  EXPECT_TRUE(shape.ok()) << shape.status();
  Client client((*shape)->channel());
  grpc::Status status;
  return Stream(&client, [] {}, &status);
}

TEST(FailoverTest, KillingAShardWithAReplicaChangesNothing) {
  const std::vector<int32_t> quiet = QuietTokens();
  ASSERT_EQ(quiet.size(), static_cast<size_t>(kOutput));
  ShapeOptions options;
  options.kind = ShapeOptions::Kind::kCluster;
  options.experts = {"all", "0/2", "1/2"};
  for (int victim : {0, 1}) {
    auto shape = Shape::Start(kModel, options);
    ASSERT_TRUE(shape.ok()) << shape.status();
    Client client((*shape)->channel());
    grpc::Status status;
    const std::vector<int32_t> tokens =
        Stream(&client, [&] { (*shape)->expert(victim)->Signal(SIGKILL); }, &status);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(tokens, quiet) << "victim " << victim;
  }
}

TEST(FailoverTest, ADrainedShardExitsByItselfAndNoRequestNotices) {
  ShapeOptions options;
  options.kind = ShapeOptions::Kind::kCluster;
  options.experts = {"all", "all"};
  auto shape = Shape::Start(kModel, options);
  ASSERT_TRUE(shape.ok()) << shape.status();
  Client client((*shape)->channel());
  grpc::Status status;
  const std::vector<int32_t> tokens =
      Stream(&client, [&] { (*shape)->expert(0)->Signal(SIGTERM); }, &status);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(tokens, QuietTokens());
  auto exit_code = (*shape)->expert(0)->Wait(absl::Now() + absl::Seconds(30));
  ASSERT_TRUE(exit_code.ok()) << exit_code.status();
  EXPECT_EQ(*exit_code, 0);
}

}  // namespace
}  // namespace gatefold

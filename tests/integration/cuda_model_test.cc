// A model whose attention and experts are on a CUDA device: in one process and as a cluster it has
// the same bits, near those of the CPU.

#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>

#include "absl/strings/str_cat.h"
#include "attention-service/attention_backend.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gatefold/model/model_weights.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/metrics_page.h"
#include "tests/integration/process.h"
#include "tests/integration/shape.h"
#include "tools/random_model.h"

namespace gatefold {
namespace {

using Kind = ShapeOptions::Kind;

class CudaModelTest : public testing::Test {
 protected:
  void SetUp() override { Write("mixtral"); }

  void Write(const std::string& family, int intermediate = 256) {
    RandomModelOptions options;
    options.family = family;
    options.intermediate = intermediate;
    options.heads = 4;
    options.head_dim = 64;
    options.layers = 2;
    options.experts = 4;
    options.vocab = 300;
    options.attention_bias = options.mlp_bias = family == "llama";
    ASSERT_TRUE(WriteRandomModel(options, folder_.path()).ok());
    const auto weights = ModelWeights::Open(folder_.path());
    ASSERT_TRUE(weights.ok()) << weights.status();
    const auto backend = MakeCudaAttentionBackend(weights->get());
    if (!backend.ok()) GTEST_SKIP() << "skipped: " << backend.status().message();
  }

  std::unique_ptr<Shape> Start(Kind kind, const std::string& backend,
                               void (*change)(ShapeOptions*) = nullptr) {
    ShapeOptions options;
    options.kind = kind;
    options.backend = options.attention_backend = backend;
    options.prefix_cache = false;
    if (change != nullptr) change(&options);
    auto shape = Shape::Start(folder_.path(), options);
    EXPECT_TRUE(shape.ok()) << shape.status();
    return shape.ok() ? *std::move(shape) : nullptr;
  }

  const TempDir folder_;
};

std::vector<int32_t> Prompt(int seed, int length) {
  std::vector<int32_t> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((seed * 131 + i * i * 7 + i * 29) % 290);
  return prompt;
}

// Some greedy, some drawn, some with penalties.
void Configure(int seed, inference::v1::GenerationConfig* config) {
  if (seed % 4 != 0) config->set_temperature(1.0f);
  if (seed % 4 == 2) config->set_top_k(20);
  if (seed % 4 == 3) config->set_repetition_penalty(1.2f);
  config->set_seed(seed);
}
constexpr int kOutput = 16;

absl::StatusOr<std::vector<int32_t>> Generate(Client* client, int seed) {
  return client->Generate(
      Prompt(seed, 20 + 3 * seed), kOutput,
      [seed](inference::v1::GenerationConfig* config) { Configure(seed, config); });
}

constexpr int kSeeds = 8;

TEST_F(CudaModelTest, OneProcessAndAClusterHaveTheSameBits) {
  const auto local = Start(Kind::kLocal, "cuda");
  const auto chunked = Start(Kind::kLocal, "cuda", [](ShapeOptions* o) { o->max_step_tokens = 7; });
  const auto cluster = Start(Kind::kCluster, "cuda", [](ShapeOptions* o) { o->n_lanes = 2; });
  ASSERT_TRUE(local != nullptr && chunked != nullptr && cluster != nullptr);
  Client quiet(local->channel());
  const auto score = quiet.ScoreTokens(Prompt(1, 90));
  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_TRUE(*score == *Client(chunked->channel()).ScoreTokens(Prompt(1, 90)));
  EXPECT_TRUE(*score == *Client(cluster->channel()).ScoreTokens(Prompt(1, 90)));
  std::vector<std::vector<int32_t>> tokens;
  for (int seed = 0; seed < kSeeds; ++seed) {
    const auto some = Generate(&quiet, seed);
    ASSERT_TRUE(some.ok()) << some.status();
    tokens.push_back(*some);
  }
  for (Shape* shape : {local.get(), chunked.get(), cluster.get()}) {
    std::vector<std::thread> streams;
    for (int seed = 0; seed < kSeeds; ++seed) {
      streams.emplace_back([&, seed] {
        Client client(shape->channel());
        const auto some = Generate(&client, seed);
        ASSERT_TRUE(some.ok()) << some.status();
        EXPECT_EQ(*some, tokens[seed]) << seed;
      });
    }
    for (std::thread& stream : streams) stream.join();
  }
}

// In one process rows stay on the device from layer to layer, gate and fold included; in a cluster
// they do not.
struct Variant {
  const char* name;
  const char* family;
  void (*change)(ShapeOptions* options);
};
class CudaModelVariantTest : public CudaModelTest, public testing::WithParamInterface<Variant> {
  void SetUp() override { Write(GetParam().family); }
};

TEST_P(CudaModelVariantTest, RowsThatStayOnTheDeviceHaveTheBitsOfThoseThatCross) {
  testing::internal::CaptureStderr();
  const auto local = Start(Kind::kLocal, "cuda", GetParam().change);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::Not(testing::HasSubstr("rows_leave_device")));
  const auto cluster = Start(Kind::kCluster, "cuda", GetParam().change);
  ASSERT_TRUE(local != nullptr && cluster != nullptr);
  Client one(local->channel()), many(cluster->channel());
  std::vector<std::vector<int32_t>> tokens;
  for (int seed = 0; seed < 4; ++seed) tokens.push_back(*Generate(&many, seed));
  std::vector<std::thread> streams;
  for (int seed = 0; seed < 4; ++seed) {
    streams.emplace_back([&, seed] {
      Client client(local->channel());
      const auto some = Generate(&client, seed);
      ASSERT_TRUE(some.ok()) << some.status();
      EXPECT_EQ(*some, tokens[seed]) << seed;
    });
  }
  for (std::thread& stream : streams) stream.join();
  const auto score = one.ScoreTokens(Prompt(3, 75)), expected = many.ScoreTokens(Prompt(3, 75));
  ASSERT_TRUE(score.ok() && expected.ok()) << score.status() << expected.status();
  EXPECT_TRUE(*score == *expected);
}

INSTANTIATE_TEST_SUITE_P(
    Variants, CudaModelVariantTest,
    testing::Values(Variant{"Bfloat16BetweenServices", "mixtral",
                            [](ShapeOptions* o) { o->wire_dtype = "bfloat16"; }},
                    Variant{"Int8", "mixtral", [](ShapeOptions* o) { o->weights = "int8"; }},
                    Variant{"TwoLanes", "mixtral", [](ShapeOptions* o) { o->n_lanes = 2; }},
                    Variant{"Dense", "llama", [](ShapeOptions* o) { o->max_step_tokens = 33; }}),
    [](const auto& info) { return std::string(info.param.name); });

// Slices that differ in size are not computed in one go.
TEST_F(CudaModelTest, RowsCrossWhereTheyMust) {
  Write("llama", 100);
  testing::internal::CaptureStderr();
  const auto local = Start(Kind::kLocal, "cuda");
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("rows_leave_device why=\"experts of 13 and of 12 hidden units\""));
  const auto cluster = Start(Kind::kCluster, "cuda");
  ASSERT_TRUE(local != nullptr && cluster != nullptr);
  const auto score = Client(local->channel()).ScoreTokens(Prompt(2, 30));
  ASSERT_TRUE(score.ok()) << score.status();
  EXPECT_TRUE(*score == *Client(cluster->channel()).ScoreTokens(Prompt(2, 30)));
}

// Of the emulated device, while there is one of these.
struct DeviceMemory {
  explicit DeviceMemory(size_t bytes) {
    setenv("GATEFOLD_EMULATOR_MEMORY", absl::StrCat(bytes).c_str(), 1);
  }
  ~DeviceMemory() { unsetenv("GATEFOLD_EMULATOR_MEMORY"); }
};

// With less and less memory a step has 2048 rows, then 512 (when less than a gigabyte would be
// left), then rows cross, then the model does not fit. Whatever there is room for has the same
// bits. (Memory is short at the start alone: what calls take beside it ends a process that does not
// get it.)
TEST_F(CudaModelTest, RowsLeaveADeviceThatIsShortOfMemory) {
  const auto weights = ModelWeights::Open(folder_.path());
  ASSERT_TRUE(weights.ok()) << weights.status();
  if ((*MakeCudaAttentionBackend(weights->get()))->device().find("emulated") == std::string::npos) {
    GTEST_SKIP() << "skipped: not the emulated device";
  }
  const auto start = [&](size_t bytes, std::string* log) {
    ShapeOptions options;
    options.backend = "cuda";
    options.kv_memory = "1MiB";
    options.max_step_tokens = 0;
    testing::internal::CaptureStderr();
    const DeviceMemory memory(bytes);
    auto shape = Shape::Start(folder_.path(), options);
    *log = testing::internal::GetCapturedStderr();
    return shape.ok() ? *std::move(shape) : nullptr;
  };
  std::string log;
  auto ample = start((size_t{1} << 30) + (size_t{64} << 20), &log);
  ASSERT_NE(ample, nullptr) << log;
  EXPECT_THAT(log, testing::Not(testing::HasSubstr("short_steps")));
  const auto want = Client(ample->channel()).ScoreTokens(Prompt(1, 90));
  ASSERT_TRUE(want.ok()) << want.status();
  ample.reset();

  ASSERT_NE(start(size_t{1} << 30, &log), nullptr);
  EXPECT_THAT(log, testing::HasSubstr("short_steps"));
  // Rows cross with the one, or the model does not fit; they stay with the other.
  size_t less = size_t{1} << 20, more = size_t{64} << 20;
  std::string log_of_more;
  while (more - less > 128 << 10) {
    const size_t bytes = (less + more) / 2;
    const auto local = start(bytes, &log);
    if (local == nullptr || log.find("rows_leave_device") != std::string::npos) {
      less = bytes;
    } else {
      more = bytes;
      log_of_more = log;
    }
    if (local == nullptr) continue;
    const auto score = Client(local->channel()).ScoreTokens(Prompt(1, 90));
    ASSERT_TRUE(score.ok()) << score.status();
    EXPECT_TRUE(*score == *want) << bytes;
  }
  EXPECT_THAT(log_of_more, testing::HasSubstr("short_steps max_step_tokens=512 why="));
  ASSERT_NE(start(less, &log), nullptr);
  EXPECT_THAT(log, testing::ContainsRegex("rows_leave_device why=.*out of memory"));
}

// A prompt that is one step by default, and two elsewhere.
TEST_F(CudaModelTest, StepsAreLongByDefault) {
  const TemporaryFolder sockets;
  const std::string address = "unix:" + sockets.Path("router");
  const auto serve = Process::Start("gatefold",
                                    {"serve", "--model=" + folder_.path(), "--listen=" + address,
                                     "--backend=cuda", "--metrics-port=0"},
                                    sockets.Path("log"));
  ASSERT_TRUE(serve.ok()) << serve.status();
  ASSERT_TRUE((*serve)->AwaitLine("ready", absl::Now() + absl::Seconds(60)).ok());
  Client client(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  const auto score = client.ScoreTokens(Prompt(1, 700));
  ASSERT_TRUE(score.ok()) << score.status();
  // Steps are counted once their sequences have been told.
  absl::StatusOr<MetricsPage> page;
  do {
    page = MetricsPage::Fetch(serve->get(), "ready ");
    ASSERT_TRUE(page.ok()) << page.status();
  } while (page->Value("gatefold_step_rows_count") == 0);
  EXPECT_EQ(page->Value("gatefold_step_rows_sum"), 700);
  EXPECT_EQ(page->Value("gatefold_step_rows_count"), 1);
  const auto two = Start(Kind::kLocal, "cuda", [](ShapeOptions* o) { o->max_step_tokens = 512; });
  ASSERT_NE(two, nullptr);
  EXPECT_TRUE(*score == *Client(two->channel()).ScoreTokens(Prompt(1, 700)));
}

TEST_F(CudaModelTest, CountsTheRowsOfExpertsOnTheDevice) {
  const auto local = Start(Kind::kLocal, "cuda");
  ASSERT_NE(local, nullptr);
  ASSERT_TRUE(Client(local->channel()).Generate(Prompt(0, 30), 6).ok());
  cluster::v1::GetExpertLoadResponse load;
  grpc::ClientContext context;
  const auto stub = cluster::v1::ClusterService::NewStub(local->channel());
  ASSERT_TRUE(stub->GetExpertLoad(&context, {}, &load).ok());
  uint64_t rows[2] = {};
  for (const auto& expert : load.experts()) rows[expert.layer()] += expert.rows();
  // The last token is not computed. Each row visits two experts.
  EXPECT_EQ(rows[0], 2 * 35);
  EXPECT_EQ(rows[1], 2 * 35);
}

TEST_F(CudaModelTest, AskingForLogprobsChangesNoToken) {
  const auto local = Start(Kind::kLocal, "cuda");
  ASSERT_NE(local, nullptr);
  Client client(local->channel());
  for (int seed = 1; seed < 3; ++seed) {  // drawn, from the logits as they are
    const auto tokens = Generate(&client, seed);
    ASSERT_TRUE(tokens.ok()) << tokens.status();
    inference::v1::GenerateTextRequest request;
    for (int32_t id : Prompt(seed, 20 + 3 * seed)) {
      request.mutable_prompt()->mutable_token_ids()->add_ids(id);
    }
    request.mutable_config()->set_max_output_tokens(16);
    request.mutable_config()->set_temperature(1.0f);
    if (seed == 2) request.mutable_config()->set_top_k(20);
    request.mutable_config()->set_seed(seed);
    request.mutable_config()->set_ignore_eos(true);
    request.mutable_output()->set_token_ids(true);
    request.mutable_output()->set_logprobs(true);
    inference::v1::GenerateTextResponse response;
    grpc::ClientContext context;
    const grpc::Status status = client.stub()->GenerateText(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    const auto& generation = response.candidates(0);
    EXPECT_EQ(std::vector<int32_t>(generation.token_ids().begin(), generation.token_ids().end()),
              *tokens);
    ASSERT_EQ(generation.logprobs_size(), 16);
    for (const auto& each : generation.logprobs()) EXPECT_LT(each.logprob(), 0);
  }
}

TEST_F(CudaModelTest, IsNearTheCpu) {
  const auto cuda = Start(Kind::kLocal, "cuda"), cpu = Start(Kind::kLocal, "cpu");
  ASSERT_TRUE(cuda != nullptr && cpu != nullptr);
  const auto score = Client(cuda->channel()).ScoreTokens(Prompt(2, 150));
  const auto expected = Client(cpu->channel()).ScoreTokens(Prompt(2, 150));
  ASSERT_TRUE(score.ok() && expected.ok()) << score.status() << expected.status();
  EXPECT_FALSE(*score == *expected) << "was it computed on the device?";
  float most = 0, largest = 0;
  for (size_t i = 0; i < expected->last_logits.size(); ++i) {
    most = std::max(most, std::abs(score->last_logits[i] - expected->last_logits[i]));
    largest = std::max(largest, std::abs(expected->last_logits[i]));
  }
  // Rows, keys, values and weights have 8 bits of mantissa there.
  EXPECT_LT(most, 0.05f * largest);
}

TEST_F(CudaModelTest, AnAttentionServiceThatEndsDoesNotShow) {
  const auto quiet = Start(Kind::kLocal, "cuda");
  const auto cluster = Start(Kind::kCluster, "cuda", [](ShapeOptions* o) { o->n_attention = 2; });
  ASSERT_TRUE(quiet != nullptr && cluster != nullptr);
  std::vector<std::vector<int32_t>> tokens;
  Client client(quiet->channel());
  for (int seed = 0; seed < kSeeds; ++seed) tokens.push_back(*Generate(&client, seed));
  std::atomic<int> n_tokens = 0;
  std::vector<std::thread> streams;
  for (int seed = 0; seed < kSeeds; ++seed) {
    streams.emplace_back([&, seed] {
      Client client(cluster->channel());
      const auto some = client.Stream(
          Prompt(seed, 20 + 3 * seed), kOutput,
          [seed](inference::v1::GenerationConfig* config) { Configure(seed, config); }, &n_tokens);
      ASSERT_TRUE(some.ok()) << some.status();
      EXPECT_EQ(*some, tokens[seed]) << seed;
    });
  }
  while (n_tokens < kSeeds * 4) std::this_thread::yield();  // of 16 each: none has ended
  cluster->attention(0)->Signal(SIGKILL);
  for (std::thread& stream : streams) stream.join();
  EXPECT_THAT(cluster->router()->Log(), testing::HasSubstr("step_failed"));
}

// What does not fit on the device is computed on the CPU, or refused where it was insisted on.
TEST_F(CudaModelTest, AutoTakesForEachSideWhatCanBeHad) {
  RandomModelOptions options;
  options.head_dim = 16;  // which attention on a device does not serve
  const TempDir folder;
  ASSERT_TRUE(WriteRandomModel(options, folder.path()).ok());
  ShapeOptions shape;
  shape.backend = "auto";
  testing::internal::CaptureStderr();
  const auto local = Shape::Start(folder.path(), shape);
  const std::string log = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(local.ok()) << local.status();
  EXPECT_THAT(log, testing::HasSubstr("warning backend backend=cpu"));
  EXPECT_THAT(log, testing::HasSubstr("head_dim 64 and 128"));
  EXPECT_TRUE(Client((*local)->channel()).Generate(Prompt(0, 10), 5).ok());
  cluster::v1::GetClusterResponse cluster;
  grpc::ClientContext context;
  const auto stub = cluster::v1::ClusterService::NewStub((*local)->channel());
  ASSERT_TRUE(stub->GetCluster(&context, {}, &cluster).ok());
  ASSERT_EQ(cluster.workers_size(), 1);  // its experts are on the device
  EXPECT_THAT(cluster.workers(0).isa(), testing::HasSubstr("compute capability"));
  EXPECT_THAT(cluster.workers(0).isa(), testing::HasSubstr(", attention on "));
  shape.backend = "cuda";
  const auto refused = Shape::Start(folder.path(), shape);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace gatefold

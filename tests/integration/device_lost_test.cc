// A process whose device is lost ends, and nobody notices but the log. On an emulated device, which
// can be told to go astray.

#include <stdlib.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/process.h"
#include "tests/integration/shape.h"
#include "tools/random_model.h"

namespace gatefold {
namespace {

constexpr char kLostFile[] = "GATEFOLD_EMULATOR_LOST_FILE";
constexpr int kStreams = 4, kOutput = 24;

class DeviceLostTest : public testing::Test {
 protected:
  void SetUp() override {
    RandomModelOptions options;
    options.heads = 4;
    options.head_dim = 64;
    options.layers = 2;
    options.experts = 4;
    ASSERT_TRUE(WriteRandomModel(options, folder_.path()).ok());
    cluster_.kind = ShapeOptions::Kind::kCluster;
    cluster_.backend = cluster_.attention_backend = "cuda";
    cluster_.experts = {"all", "all"};
    cluster_.n_attention = 2;
    cluster_.n_lanes = 2;
  }

  static std::vector<int32_t> Prompt(int stream) {
    std::vector<int32_t> prompt;
    for (int i = 0; i < 20; ++i) prompt.push_back((stream * 31 + i * 7) % 250);
    return prompt;
  }
  static std::vector<int32_t> Stream(Shape* shape, int stream, std::atomic<int>* n_told) {
    Client client(shape->channel());
    const auto tokens = client.Stream(
        Prompt(stream), kOutput,
        [stream](inference::v1::GenerationConfig* config) {
          config->set_temperature(1);
          config->set_seed(stream);
        },
        n_told);
    EXPECT_TRUE(tokens.ok()) << tokens.status();
    return tokens.value_or(std::vector<int32_t>());
  }

  // What one process says.
  std::vector<std::vector<int32_t>> Expected() {
    ShapeOptions local;
    local.backend = "cuda";
    const auto shape = Shape::Start(folder_.path(), local);
    EXPECT_TRUE(shape.ok()) << shape.status();
    std::vector<std::vector<int32_t>> tokens;
    std::atomic<int> n_tokens = 0;
    for (int i = 0; i < kStreams; ++i) tokens.push_back(Stream(shape->get(), i, &n_tokens));
    return tokens;
  }
  // The streams' tokens from the cluster, where the device of this process is lost meanwhile.
  void ExpectTheSameAlthoughLost(Shape* shape, Process* process,
                                 const std::vector<std::vector<int32_t>>& expected) {
    std::atomic<int> n_tokens = 0;
    std::vector<std::thread> streams;
    for (int i = 0; i < kStreams; ++i) {
      streams.emplace_back([&, i] { EXPECT_EQ(Stream(shape, i, &n_tokens), expected[i]) << i; });
    }
    while (n_tokens < kStreams * 4) std::this_thread::yield();
    std::ofstream(lost_file_.Path("lost")).put('!');
    for (std::thread& stream : streams) stream.join();
    EXPECT_EQ(process->Wait(absl::Now() + absl::Seconds(5)).value_or(-1), 1);
    EXPECT_THAT(process->Log(), testing::HasSubstr("device_lost"));
    EXPECT_THAT(process->Log(), testing::HasSubstr("illegal memory access"));
  }
  // Of the processes that are started meanwhile the device can be lost.
  template <typename Start>
  void WithLostFile(Start start) {
    setenv(kLostFile, lost_file_.Path("lost").c_str(), 1);
    const absl::Status status = start();
    unsetenv(kLostFile);
    ASSERT_TRUE(status.ok()) << status;
  }

  TemporaryFolder lost_file_;
  const TempDir folder_;
  ShapeOptions cluster_;
};

TEST_F(DeviceLostTest, AShardsEndIsHiddenByItsReplica) {
  const auto expected = Expected();
  cluster_.n_started = 1;
  const auto shape = Shape::Start(folder_.path(), cluster_);
  ASSERT_TRUE(shape.ok()) << shape.status();
  WithLostFile([&] { return (*shape)->StartExpert(1); });
  Process* const shard = (*shape)->expert(1);
  ASSERT_TRUE(shard->AwaitLine("ready", absl::Now() + absl::Seconds(60)).ok());
  ASSERT_TRUE((*shape)->router()->AwaitLine("ready", absl::Now() + absl::Seconds(5)).ok());
  ExpectTheSameAlthoughLost(shape->get(), shard, expected);
}

TEST_F(DeviceLostTest, AnAttentionServicesSequencesGoOnElsewhere) {
  const auto expected = Expected();
  const auto shape = Shape::Start(folder_.path(), cluster_);
  ASSERT_TRUE(shape.ok()) << shape.status();
  Process* const attention = (*shape)->attention(0);
  const auto n_times_ready = [&] {  // as the router has it
    int n = 0;
    const std::string log = (*shape)->router()->Log();
    for (absl::string_view line : absl::StrSplit(log, '\n')) {
      n += absl::StrContains(line, "worker_state") && absl::StrContains(line, " to=ready") &&
           absl::StrContains(line, (*shape)->attention_address(0));
    }
    return n;
  };
  const int n_before = n_times_ready();
  WithLostFile([&] { return attention->Restart(); });
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (n_times_ready() == n_before && absl::Now() < deadline)
    absl::SleepFor(absl::Milliseconds(20));
  ASSERT_GT(n_times_ready(), n_before) << (*shape)->router()->Log();
  ExpectTheSameAlthoughLost(shape->get(), attention, expected);
}

// In one process there is nowhere to go: it ends, so that whoever watches starts it again.
TEST_F(DeviceLostTest, OneProcessEnds) {
  const std::string address = "unix:" + lost_file_.Path("router");
  std::unique_ptr<Process> process;
  WithLostFile([&] {
    auto started = Process::Start(
        "gatefold", {"serve", "--model=" + folder_.path(), "--listen=" + address, "--backend=cuda"},
        lost_file_.Path("log"));
    if (started.ok()) process = *std::move(started);
    return started.status();
  });
  ASSERT_TRUE(process->AwaitLine("ready", absl::Now() + absl::Seconds(60)).ok());
  Client client(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  ASSERT_TRUE(client.Generate(Prompt(0), 2).ok());
  std::ofstream(lost_file_.Path("lost")).put('!');
  EXPECT_EQ(client.Generate(Prompt(1), 2).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(process->Wait(absl::Now() + absl::Seconds(5)).value_or(-1), 1);
  EXPECT_THAT(process->Log(), testing::HasSubstr("device_lost"));
}

}  // namespace
}  // namespace gatefold

// What an operator does to a running cluster, and sees of it, while requests run.

#include <signal.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/command.h"
#include "cli/output.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/metrics_page.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

using cluster::v1::Worker;
using testing::HasSubstr;

constexpr char kModel[] = "tests/golden/mixtral/bf16";
constexpr int kExperts = 4 * 8;  // of the model, all layers
constexpr int kShards = 3;
constexpr int kOutput = 100;
constexpr int kStreams = 4;

// Every thread of the process has stopped; a signal takes its time.
bool Stopped(pid_t pid) {
  const std::string tasks = absl::StrCat("/proc/", pid, "/task");
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    std::ifstream file(task.path() / "stat");
    std::string stat;
    std::getline(file, stat);
    const size_t name_end = stat.rfind(')');  // "1234 (name) T ..."
    if (name_end == std::string::npos || stat.substr(name_end, 3) != ") T") return false;
  }
  return true;
}

class OperatorTest : public testing::Test {
 protected:
  void SetUp() override {
    ShapeOptions options;
    options.kind = ShapeOptions::Kind::kCluster;
    options.experts.assign(kShards, "none");
    options.metrics = true;
    options.router_flags = {"--planner=on", absl::StrCat("--admin-listen=", admin_address_)};
    auto shape = Shape::Start(kModel, options);
    ASSERT_TRUE(shape.ok()) << shape.status();
    shape_ = *std::move(shape);
    client_ = std::make_unique<Client>(shape_->channel());
    cluster_ = cluster::v1::ClusterService::NewStub(shape_->channel());
    admin_ = cluster::v1::AdminService::NewStub(
        grpc::CreateChannel(admin_address_, grpc::InsecureChannelCredentials()));
    router_ = shape_->router()->Log();
    router_ = router_.substr(router_.find("listening on ") + 13);
    router_ = router_.substr(0, router_.find_first_of(" \n"));
  }
  void TearDown() override { StopLoad(); }

  static std::vector<int32_t> Prompt(int stream) { return {1, 5 + stream, 9, 20}; }

  // Streams that start again whenever they end, all with the tokens of the first time.
  void StartLoad() {
    for (int i = 0; i < kStreams; ++i) {
      const auto tokens = client_->Generate(Prompt(i), kOutput);
      ASSERT_TRUE(tokens.ok()) << tokens.status();
      streams_.emplace_back([this, i, quiet = *tokens] {
        while (!stopping_) {
          const auto tokens = client_->Generate(Prompt(i), kOutput);
          EXPECT_TRUE(tokens.ok()) << tokens.status();
          EXPECT_EQ(tokens.value_or(quiet), quiet) << "stream " << i;
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
    Await([&] { return n_answers_ >= until; }, "answers");
  }
  template <typename Condition>
  void Await(Condition condition, const char* what) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (!condition()) {
      ASSERT_LT(absl::Now(), deadline) << what;
      absl::SleepFor(absl::Milliseconds(10));
    }
  }

  Worker Shard(int index) {
    grpc::ClientContext context;
    cluster::v1::GetClusterResponse response;
    EXPECT_TRUE(cluster_->GetCluster(&context, {}, &response).ok());
    for (const Worker& worker : response.workers()) {
      if (worker.kind() != cluster::v1::WORKER_KIND_EXPERT) continue;
      if (index-- == 0) return worker;
    }
    return Worker();
  }
  void AwaitEven() {
    for (int i = 0; i < kShards; ++i) {
      Await(
          [&] {
            return Shard(i).n_experts() >= kExperts / kShards &&
                   Shard(i).n_experts() <= kExperts / kShards + 1;
          },
          "an even share of experts");
    }
  }
  grpc::Status Drain(const std::string& worker, Worker* drained) {
    grpc::ClientContext context;
    cluster::v1::DrainWorkerRequest request;
    request.set_worker(worker);
    cluster::v1::DrainWorkerResponse response;
    const grpc::Status status = admin_->DrainWorker(&context, request, &response);
    *drained = response.worker();
    return status;
  }

  // `gatefold ARGUMENTS`.
  int Run(const std::vector<std::string>& arguments) {
    std::istringstream in;
    std::ostringstream out, err;
    cli::Interrupts interrupts;
    cli::Console console{in, out, err, false, &interrupts};
    const int exit_code = cli::RunCommand(arguments, {}, &console);
    out_ = out.str();
    err_ = err.str();
    return exit_code;
  }

  TemporaryFolder folder_;
  const std::string admin_address_ = absl::StrCat("unix:", folder_.Path("admin"));
  std::unique_ptr<Shape> shape_;
  std::string router_;  // its address
  std::unique_ptr<Client> client_;
  std::unique_ptr<cluster::v1::ClusterService::Stub> cluster_;
  std::unique_ptr<cluster::v1::AdminService::Stub> admin_;
  std::vector<std::thread> streams_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> n_answers_ = 0;
  std::string out_, err_;
};

TEST_F(OperatorTest, ADrainedShardGetsNothingMoreAndNoRequestNotices) {
  AwaitEven();
  StartLoad();
  Worker drained;
  const grpc::Status status = Drain(Shard(1).address(), &drained);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(drained.state(), cluster::v1::WORKER_STATE_DRAINING);
  EXPECT_GT(drained.n_sole_experts(), 0);  // it is told, and others do not have them yet
  Await([&] { return Shard(1).n_sole_experts() == 0; }, "cover elsewhere");
  // Calls that were under way then end; after that, nothing.
  AwaitAnswers(kStreams);
  const uint64_t rows = Shard(1).rows_served();
  AwaitAnswers(kStreams);
  EXPECT_EQ(Shard(1).rows_served(), rows);
  EXPECT_GE(Shard(0).n_experts() + Shard(2).n_experts(), kExperts);
  // Taken back, it gets experts again, and rows.
  grpc::ClientContext context;
  cluster::v1::ResumeWorkerRequest request;
  request.set_worker(Shard(1).address());
  cluster::v1::ResumeWorkerResponse resumed;
  ASSERT_TRUE(admin_->ResumeWorker(&context, request, &resumed).ok());
  EXPECT_EQ(resumed.worker().state(), cluster::v1::WORKER_STATE_READY);
  Await([&] { return Shard(1).rows_served() > rows; }, "rows for the resumed shard");
  StopLoad();
}

TEST_F(OperatorTest, SaysWhichWorkersItDoesNotKnowOrCannotReach) {
  Worker drained;
  grpc::Status status = Drain("nobody", &drained);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr(Shard(0).address()));
  shape_->expert(2)->Signal(SIGSTOP);  // it lives, and does not answer
  Await([&] { return Stopped(shape_->expert(2)->pid()); }, "the shard to stop");
  status = Drain(Shard(2).address(), &drained);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr(Shard(2).address()));
  shape_->expert(2)->Signal(SIGCONT);
}

TEST_F(OperatorTest, DrainsAnAttentionServiceAfterItsSequences) {
  StartLoad();
  grpc::ClientContext context;
  cluster::v1::GetClusterResponse cluster;
  ASSERT_TRUE(cluster_->GetCluster(&context, {}, &cluster).ok());
  const std::string attention = cluster.workers(0).address();
  Worker drained;
  ASSERT_TRUE(Drain(attention, &drained).ok());
  EXPECT_EQ(drained.kind(), cluster::v1::WORKER_KIND_ATTENTION);
  EXPECT_EQ(drained.state(), cluster::v1::WORKER_STATE_DRAINING);
  // The only one there is: requests wait for it to come back.
  ASSERT_EQ(Run({"drain", attention, "--router", admin_address_}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("is drained: no attention-service is left"));
  EXPECT_EQ(Run({"resume", attention, "--router", admin_address_}), 0) << err_;
  EXPECT_EQ(out_, absl::StrCat(attention, " is ready\n"));
  AwaitAnswers(kStreams);
  StopLoad();
}

TEST_F(OperatorTest, RebalancesOnRequest) {
  AwaitEven();
  grpc::ClientContext context;
  cluster::v1::RebalanceExpertsResponse response;
  const grpc::Status status = admin_->RebalanceExperts(&context, {}, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.n_uncovered(), 0);
  EXPECT_LT(response.imbalance(), 1.2);
  // Counted like any other call, a moment after its answer.
  const auto counted = [this] {
    const auto page = MetricsPage::Fetch(shape_->router());
    return page.ok() &&
           page->Value(
               "grpc_server_call_duration_seconds_count{grpc_method=\"gatefold.cluster."
               "v1.AdminService/RebalanceExperts\",grpc_status=\"OK\"}") == 1;
  };
  Await(counted, "the call is in the metrics");
}

TEST_F(OperatorTest, FlushesTheKvCacheAndTokensStay) {
  const std::vector<int32_t> prompt(100, 7);
  const auto cold = client_->Generate(prompt, 4);
  ASSERT_TRUE(cold.ok()) << cold.status();
  ASSERT_EQ(*client_->Generate(prompt, 4), *cold);
  EXPECT_GT(client_->n_cached_tokens(), 0);
  cluster::v1::FlushKvCacheRequest request;
  cluster::v1::FlushKvCacheResponse response;
  // The last sequence's blocks are its own until it is closed, which may be after its answer.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  do {
    grpc::ClientContext context;
    const grpc::Status status = admin_->FlushKvCache(&context, request, &response);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(response.workers_size(), 1);
  } while (response.workers(0).n_kv_blocks() == 0 && absl::Now() < deadline);
  EXPECT_GT(response.workers(0).n_kv_blocks(), 0);
  EXPECT_EQ(*client_->Generate(prompt, 4), *cold);
  EXPECT_EQ(client_->n_cached_tokens(), 0);
  grpc::ClientContext contexts[2];
  request.set_worker(Shard(0).address());  // a shard has no such cache
  EXPECT_EQ(admin_->FlushKvCache(&contexts[0], request, &response).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  request.set_worker("nobody");
  EXPECT_EQ(admin_->FlushKvCache(&contexts[1], request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(OperatorTest, TheCommandTracesAGenerationThatHasEnded) {
  EXPECT_EQ(Run({"trace", "mine", "--router", router_}), 1);
  EXPECT_THAT(err_, HasSubstr("no generation with this request_id"));
  ASSERT_EQ(Run({"generate", "--router", router_, "--tokens", "1,5,9,20", "--max-tokens", "6",
                 "--ignore-eos", "--request-id", "mine", "--trace", "-o", "json"}),
            0)
      << err_;
  const cli::Json answer = cli::Json::parse(out_);
  ASSERT_EQ(Run({"trace", "mine", "--router", router_, "-o", "json"}), 0) << err_;
  const cli::Json trace = cli::Json::parse(out_);
  EXPECT_EQ(trace["status"], "OK");
  EXPECT_EQ(trace["usage"]["output_tokens"], 6);
  EXPECT_EQ(trace["candidates"][0]["finish_reason"], "length");
  EXPECT_EQ(trace["trace"], answer["trace"]) << "the routes are those that the stream told";
  EXPECT_GE(trace["end_to_end_ms"], trace["decode_ms"]);
  ASSERT_EQ(Run({"trace", "mine", "--router", router_}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("4 prompt tokens (0 cached), 6 output tokens, length after 6"));
  EXPECT_EQ(Run({"trace", "--router", router_}), 2);
  EXPECT_EQ(Run({"trace", "mine"}), 2);
}

TEST_F(OperatorTest, TellsOfTheTopologyAsItChanges) {
  AwaitEven();
  grpc::ClientContext context;
  auto stream = cluster_->WatchTopology(&context, {});
  cluster::v1::WatchTopologyResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.cluster().coverage_ratio(), 1);
  shape_->expert(1)->Signal(SIGKILL);
  const auto gone = [&] {
    for (const Worker& worker : response.cluster().workers()) {
      if (worker.state() == cluster::v1::WORKER_STATE_UNREACHABLE) return true;
    }
    return false;
  };
  while (!gone()) ASSERT_TRUE(stream->Read(&response));
  context.TryCancel();
}

TEST_F(OperatorTest, TheCommandShowsWhatHappens) {
  AwaitEven();
  StartLoad();
  ASSERT_EQ(Run({"top", "--once", "--interval=1500ms", "--router", router_, "-o", "json"}), 0)
      << err_;
  const cli::Json top = cli::Json::parse(out_);
  EXPECT_GT(top["tokens_per_second"], 0);
  EXPECT_GT(top["itl_ms"]["p50"], 0);
  EXPECT_EQ(top["workers"].size(), kShards + 1);
  EXPECT_GE(top["imbalance"], 1);
  double busy = 0;
  for (const cli::Json& worker : top["workers"]) busy += worker["busy_ratio"].get<double>();
  EXPECT_GT(busy, 0);
  ASSERT_EQ(Run({"get", "experts", "--router", router_, "-o", "json"}), 0) << err_;
  const cli::Json experts = cli::Json::parse(out_)["experts"];
  ASSERT_EQ(experts.size(), kExperts);
  EXPECT_GE(experts[0]["replicas"], 1);  // two while it moves
  double load = 0;
  for (int e = 0; e < 8; ++e) load += experts[e]["load"].get<double>();
  EXPECT_NEAR(load, 8, 1e-6);
  ASSERT_EQ(Run({"top", "--once", "--interval=100ms", "--router", router_}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("imbalance"));

  // Requests' port is not the operators'.
  const std::string shard = Shard(0).address();
  EXPECT_EQ(Run({"drain", shard, "--router", router_}), 1);
  EXPECT_THAT(err_, HasSubstr("--admin-listen"));
  ASSERT_EQ(Run({"drain", shard, "--router", admin_address_}), 0) << err_;
  EXPECT_THAT(out_, HasSubstr("is drained"));
  EXPECT_EQ(Shard(0).n_sole_experts(), 0);
  ASSERT_EQ(Run({"resume", shard, "--router", admin_address_, "-o", "json"}), 0) << err_;
  EXPECT_EQ(cli::Json::parse(out_)["state"], "ready");
  EXPECT_EQ(Run({"drain", "--router", admin_address_}), 2);
  StopLoad();
}

}  // namespace
}  // namespace gatefold

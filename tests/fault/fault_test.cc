#include "tests/fault/fault_test.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"

namespace gatefold {
std::vector<std::vector<int32_t>>* FaultTest::quiet_tokens_ = nullptr;

std::string FaultTest::Model() {
  const char* chosen = std::getenv("GATEFOLD_FAULT_MODEL");
  return chosen != nullptr ? chosen : "tests/golden/mixtral/bf16";
}

void FaultTest::SetUpTestSuite() {
  if (quiet_tokens_ != nullptr) return;  // another suite of this program has asked
  auto quiet = Shape::Start(Model(), ShapeOptions());
  ASSERT_TRUE(quiet.ok()) << quiet.status();
  auto tokens = StreamLoad::QuietTokens((*quiet)->channel());
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  quiet_tokens_ = new std::vector<std::vector<int32_t>>(*std::move(tokens));
}

int FaultTest::FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  int value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

void FaultTest::SetUp() {
  const int seed =
      FromEnvironment("GATEFOLD_FAULT_SEED", static_cast<int>(std::random_device()() >> 1));
  random_.seed(seed);
  std::cout << "GATEFOLD_FAULT_SEED=" << seed << std::endl;
}

void FaultTest::Start(ShapeOptions options, const std::function<bool()>& ready) {
  options.kind = ShapeOptions::Kind::kCluster;
  options.n_lanes = 2;
  n_routers_ = options.n_routers;
  n_workers_ = options.n_attention + static_cast<int>(options.experts.size());
  auto shape = Shape::Start(Model(), options);
  ASSERT_TRUE(shape.ok()) << shape.status();
  shape_ = *std::move(shape);
  std::vector<std::shared_ptr<grpc::Channel>> routers;
  clusters_.clear();
  for (int i = 0; i < n_routers_; ++i) {
    routers.push_back(shape_->channel(i));
    clusters_.push_back(cluster::v1::ClusterService::NewStub(routers.back()));
  }
  grpc::ClientContext context;
  cluster::v1::GetExpertLoadResponse load;
  ASSERT_TRUE(clusters_[0]->GetExpertLoad(&context, {}, &load).ok());
  n_experts_ = load.experts_size();
  if (ready != nullptr) {
    ASSERT_TRUE(Await(ready)) << "the cluster does not come to rest";
  }
  load_ = std::make_unique<StreamLoad>(routers, *quiet_tokens_);
  // Latencies are known then, and no pause of the start counts.
  ASSERT_TRUE(load_->AwaitTokens(50));
  load_->TakePauses();
  for (int i = 0; i < FromEnvironment("GATEFOLD_FAULT_ROUNDS", 1); ++i) {
    ASSERT_TRUE(load_->AwaitTokens(50));
  }
  quiet_pauses_ = load_->TakePauses();
}

void FaultTest::Report(const std::string& what, const StreamLoad::Pauses& pauses) const {
  std::cout << what << ": " << ToString(pauses) << "; quiet: " << ToString(quiet_pauses_)
            << std::endl;
}

StreamLoad::Pauses FaultTest::Report(const std::string& what) {
  StreamLoad::Pauses pauses = load_->TakePauses();
  Report(what, pauses);
  return pauses;
}

bool FaultTest::Await(const std::function<bool()>& reached) {
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (absl::Now() < deadline) {
    if (reached()) return true;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return false;
}

std::vector<cluster::v1::Worker> FaultTest::Workers(int router) {
  grpc::ClientContext context;
  cluster::v1::ListWorkersResponse response;
  if (!clusters_[router]->ListWorkers(&context, {}, &response).ok()) return {};
  return {response.workers().begin(), response.workers().end()};
}

std::vector<cluster::v1::Worker> FaultTest::Shards() {
  std::vector<cluster::v1::Worker> shards = Workers();
  std::erase_if(shards, [](const cluster::v1::Worker& worker) {
    return worker.kind() != cluster::v1::WORKER_KIND_EXPERT;
  });
  return shards;
}

bool FaultTest::AllReady() {
  for (int router = 0; router < n_routers_; ++router) {
    const auto workers = Workers(router);
    const auto n_ready = std::count_if(workers.begin(), workers.end(), [](const auto& worker) {
      return worker.state() == cluster::v1::WORKER_STATE_READY;
    });
    if (n_ready != n_workers_) return false;
  }
  return true;
}

}  // namespace gatefold

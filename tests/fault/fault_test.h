#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gtest/gtest.h"
#include "tests/fault/stream_load.h"
#include "tests/integration/shape.h"

namespace gatefold {

// What tests of faults share: a cluster of processes, and 16 streams on it that are compared with a
// quiet run. How long streams paused is printed; bounds of it have much room, for the machine may
// be busy.
//
//   GATEFOLD_FAULT_KILLS=100   processes that are killed (default 10)
//   GATEFOLD_FAULT_ROUNDS=5    of what only measures (default 1)
//   GATEFOLD_FAULT_SEED=7      for when and whom (default: drawn, and printed)
//   GATEFOLD_FAULT_MODEL=models/gatefold-tiny-moe
class FaultTest : public testing::Test {
 protected:
  // The goal is 300 ms where a replica exists.
  static constexpr absl::Duration kLongestPause = absl::Milliseconds(5 * 300);

  static void SetUpTestSuite();
  static std::string Model();  // its folder
  static int FromEnvironment(const char* name, int otherwise);

  void SetUp() override;
  void TearDown() override { load_.reset(); }

  // A cluster, and once `ready` holds, streams on it. Returns when their quiet pauses are known.
  void Start(ShapeOptions options, const std::function<bool()>& ready = nullptr);
  // Prints pauses beside the quiet ones; since Start or the last Report, if none are given.
  void Report(const std::string& what, const StreamLoad::Pauses& pauses) const;
  StreamLoad::Pauses Report(const std::string& what);

  int Random(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }
  void PauseUpTo(absl::Duration longest) { absl::SleepFor(longest * (Random(1000) / 1000.0)); }

  // False after a minute.
  static bool Await(const std::function<bool()>& reached);
  // As that router knows them; empty: it does not answer.
  std::vector<cluster::v1::Worker> Workers(int router = 0);
  std::vector<cluster::v1::Worker> Shards();
  // At every router: all workers are ready.
  bool AllReady();
  bool AwaitAllReady() {
    return Await([this] { return AllReady(); });
  }
  uint32_t n_experts() const { return n_experts_; }  // of the model, all layers

  std::unique_ptr<Shape> shape_;
  std::unique_ptr<StreamLoad> load_;
  std::mt19937 random_;

 private:
  static std::vector<std::vector<int32_t>>* quiet_tokens_;
  int n_routers_ = 0, n_workers_ = 0;
  uint32_t n_experts_ = 0;
  std::vector<std::unique_ptr<cluster::v1::ClusterService::Stub>> clusters_;  // by router
  StreamLoad::Pauses quiet_pauses_;
};

}  // namespace gatefold

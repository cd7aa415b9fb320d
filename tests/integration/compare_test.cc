// `gatefold compare`: it serves models in processes of its own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/types.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"
#include "tests/integration/process.h"
#include "tools/random_model.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

class CompareTest : public testing::Test {
 protected:
  void SetUp() override {
    RandomModelOptions sparse;
    sparse.layers = 2;
    sparse.d_model = 64;
    sparse.intermediate = 64;
    sparse.max_positions = 256;
    RandomModelOptions dense = sparse;
    dense.family = "llama";
    dense.intermediate = 8 * sparse.intermediate;
    ASSERT_TRUE(WriteRandomModel(sparse, folder_.Path("sparse")).ok());
    ASSERT_TRUE(WriteRandomModel(dense, folder_.Path("dense")).ok());
  }

  // Its exit code; output_ has all that it wrote.
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "compare");
    const auto process = Process::Start("gatefold", arguments, folder_.Path("log"));
    if (!process.ok()) return -1;
    const auto exit_code = (*process)->Wait(absl::Now() + absl::Seconds(120));
    output_ = (*process)->Log();
    return exit_code.value_or(-1);
  }

  TemporaryFolder folder_;
  std::string output_;
};

TEST_F(CompareTest, PutsModelsSideBySide) {
  ASSERT_EQ(Run({"--models", folder_.Path("sparse") + "," + folder_.Path("dense"), "--rounds=1",
                 "--sequences=1,2", "--prompt-tokens=16", "--output-tokens=100", "-o", "json"}),
            0)
      << output_;
  const auto json = nlohmann::json::parse(output_.substr(output_.find('{')), nullptr, false);
  ASSERT_EQ(json["models"].size(), 2) << output_;
  const auto& sparse = json["models"][0];
  const auto& dense = json["models"][1];
  EXPECT_EQ(sparse["model"], "sparse");
  for (const auto* model : {&sparse, &dense}) {
    EXPECT_GT((*model)["prefill_tokens_per_second"], 0);
    EXPECT_GT((*model)["decode_tokens_per_second"]["1"], 0);
    EXPECT_GT((*model)["decode_tokens_per_second"]["2"], 0);
    EXPECT_GT((*model)["peak_memory_bytes"], (*model)["weight_bytes"]);
    EXPECT_LT((*model)["bytes_per_token"], (*model)["weight_bytes"]);
  }
  // Eight experts' worth of MLP in both; the sparse one also has gates, and reads two experts.
  EXPECT_NEAR(sparse["weight_bytes"].get<double>(), dense["weight_bytes"].get<double>(), 1e4);
  EXPECT_EQ(dense["bytes_per_token"].get<int>() - sparse["bytes_per_token"].get<int>(),
            2 * 2 * 6 * 3 * 64 * 64 - 2 * 2 * 8 * 64);  // bytes, layers, experts, matrices; gates
  ASSERT_EQ(json["against_first"].size(), 2);
  EXPECT_NEAR(json["against_first"][0]["ideal"].get<double>(),
              dense["bytes_per_token"].get<double>() / sparse["bytes_per_token"].get<double>(),
              1e-9);
}

TEST_F(CompareTest, CountsTheBytesOfQuantisedExperts) {
  uint64_t bytes[2], read[2];
  for (int int8 : {0, 1}) {
    ASSERT_EQ(Run({"--models", folder_.Path("sparse"), "--rounds=1", "--sequences=1",
                   "--prompt-tokens=16", "--output-tokens=100", "-o", "json",
                   int8 ? "--weights=int8" : "--weights=checkpoint"}),
              0)
        << output_;
    const auto json = nlohmann::json::parse(output_.substr(output_.find('{')), nullptr, false);
    ASSERT_EQ(json["models"].size(), 1) << output_;
    bytes[int8] = json["models"][0]["weight_bytes"];
    read[int8] = json["models"][0]["bytes_per_token"];
  }
  // Panels of 4 outputs have 512 bytes, or 256 and 64 with scales. Two layers of eight experts, and
  // two of them for a token.
  constexpr uint64_t kSaved = 3 * 64 / 4 * (512 - 320);
  EXPECT_EQ(bytes[0] - bytes[1], 2 * 8 * kSaved);
  EXPECT_EQ(read[0] - read[1], 2 * 2 * kSaved);
  EXPECT_EQ(Run({"--models", folder_.Path("sparse"), "--weights=int2"}), 2);
  EXPECT_THAT(output_, HasSubstr("must be checkpoint, int8 or int4"));
}

TEST_F(CompareTest, TellsModelsOfOneNameApart) {
  const std::string nested = folder_.Path("nested");
  std::filesystem::create_directory(nested);
  std::filesystem::copy(folder_.Path("sparse"), nested + "/sparse");
  ASSERT_EQ(Run({"--models", folder_.Path("sparse") + "," + nested + "/sparse", "--rounds=1",
                 "--sequences=1", "--prompt-tokens=16", "--output-tokens=20"}),
            0)
      << output_;
  EXPECT_THAT(output_, HasSubstr("decode of " + folder_.Path("sparse")));
  EXPECT_THAT(output_, HasSubstr(nested + "/sparse"));
}

TEST_F(CompareTest, SaysWhichModelFails) {
  EXPECT_EQ(Run({"--models", folder_.Path("sparse") + ",/nonexistent"}), 1);
  EXPECT_THAT(output_, HasSubstr("/nonexistent"));
  // Which a server reads, and compare does not.
  setenv("GATEFOLD_KV_MEMORY", "1", /*overwrite=*/1);
  EXPECT_EQ(Run({"--models", folder_.Path("sparse")}), 1);
  unsetenv("GATEFOLD_KV_MEMORY");
  EXPECT_THAT(output_, HasSubstr(folder_.Path("sparse") + " could not be served"));
  EXPECT_THAT(output_, HasSubstr("kv_memory is 1 bytes"));
}

TEST_F(CompareTest, LeavesNoServerBehindHoweverItEnds) {
  const auto children = [](pid_t parent) {
    std::ifstream file(absl::StrCat("/proc/", parent, "/task/", parent, "/children"));
    std::vector<pid_t> pids;
    for (pid_t pid = 0; file >> pid;) pids.push_back(pid);
    return pids;
  };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGKILL}) {
    SCOPED_TRACE(signal);
    auto process =
        Process::Start("gatefold",
                       {"compare", "--models", folder_.Path("sparse") + "," + folder_.Path("dense"),
                        "--rounds=1000"},
                       folder_.Path("log"));
    ASSERT_TRUE(process.ok()) << process.status();
    std::vector<pid_t> servers;
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (servers.empty() && absl::Now() < deadline) servers = children((*process)->pid());
    ASSERT_FALSE(servers.empty());
    (*process)->Signal(signal);
    ASSERT_TRUE((*process)->Wait(absl::Now() + absl::Seconds(30)).ok());
    // The first server existed; a second one may have been started since, with the same pipe.
    for (const pid_t pid : servers) {
      while (kill(pid, 0) == 0 && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(5));
      EXPECT_NE(kill(pid, 0), 0);
    }
  }
}

TEST_F(CompareTest, RefusesWrongUsage) {
  EXPECT_EQ(Run({}), 2);
  EXPECT_EQ(Run({"--models", folder_.Path("sparse"), "--rounds=0"}), 2);
  EXPECT_EQ(Run({"--models", folder_.Path("sparse"), "--sequences=1,1"}), 2);
  EXPECT_EQ(Run({"--models", folder_.Path("sparse"), "--sequences=0"}), 2);
  EXPECT_EQ(Run({"--models", folder_.Path("sparse"), "--isa=mmx"}), 2);
}

}  // namespace
}  // namespace gatefold

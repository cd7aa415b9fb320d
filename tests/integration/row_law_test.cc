// The row law: a row's result depends on that row and its own sequence's past, and on nothing else.
// Every variation must give the bits of the quiet run: one sequence, one lane, one process.

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

using Kind = ShapeOptions::Kind;

constexpr int kOutput = 24;

// A deterministic prompt of its own for every index.
std::vector<int32_t> Prompt(int index, int length) {
  std::vector<int32_t> prompt;
  uint32_t state = 12345u + 977u * static_cast<uint32_t>(index);
  for (int i = 0; i < length; ++i) {
    state = state * 1664525u + 1013904223u;
    prompt.push_back(static_cast<int32_t>((state >> 8) % 512));
  }
  return prompt;
}

void Sampled(inference::v1::GenerationConfig* config) {
  config->set_temperature(1.3f);
  config->set_top_p(0.95f);
  config->set_repetition_penalty(1.1f);
  config->set_seed(42);
}

// What one prompt of length 150 gives: bits of the last logits, all log-probabilities, routing,
// greedy and sampled continuations.
struct Bits {
  Client::Score score;
  std::vector<int32_t> greedy;
  std::vector<int32_t> sampled;
  friend bool operator==(const Bits&, const Bits&) = default;
};

absl::StatusOr<Bits> Observe(Client* client) {
  const std::vector<int32_t> prompt = Prompt(0, 150);
  Bits bits;
  auto score = client->ScoreTokens(prompt);
  if (!score.ok()) return score.status();
  bits.score = *std::move(score);
  auto greedy = client->Generate(prompt, kOutput);
  if (!greedy.ok()) return greedy.status();
  bits.greedy = *std::move(greedy);
  auto sampled = client->Generate(prompt, kOutput, Sampled);
  if (!sampled.ok()) return sampled.status();
  bits.sampled = *std::move(sampled);
  return bits;
}

class RowLawTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ShapeOptions options;
    options.prefix_cache = false;
    auto bits = ObserveIn(options);
    ASSERT_TRUE(bits.ok()) << bits.status();
    quiet_ = *std::move(bits);
    ASSERT_EQ(quiet_.greedy.size(), static_cast<size_t>(kOutput));
    ASSERT_NE(quiet_.greedy, quiet_.sampled);
  }

  absl::StatusOr<Bits> ObserveIn(const ShapeOptions& options) {
    auto shape = Shape::Start(Folder(), options);
    if (!shape.ok()) return shape.status();
    Client client((*shape)->channel());
    return Observe(&client);
  }

  void ExpectSameBits(const ShapeOptions& options, const std::string& what) {
    auto bits = ObserveIn(options);
    ASSERT_TRUE(bits.ok()) << what << ": " << bits.status();
    EXPECT_TRUE(bits->score == quiet_.score) << what;
    EXPECT_EQ(bits->greedy, quiet_.greedy) << what;
    EXPECT_EQ(bits->sampled, quiet_.sampled) << what;
  }

  // While 17 other sequences of all lengths come and go.
  void ExpectSameBitsInABatch(const ShapeOptions& options, const std::string& what) {
    auto shape = Shape::Start(Folder(), options);
    ASSERT_TRUE(shape.ok()) << what << ": " << shape.status();
    std::vector<std::thread> others;
    for (int i = 1; i <= 17; ++i) {
      others.emplace_back([&, i] {
        Client client((*shape)->channel());
        for (int round = 0; round < 4; ++round) {
          EXPECT_TRUE(client.Generate(Prompt(i + 100 * round, 7 * i), 10 + 3 * i, Sampled).ok());
        }
      });
    }
    Client client((*shape)->channel());
    auto bits = Observe(&client);
    for (std::thread& other : others) other.join();
    ASSERT_TRUE(bits.ok()) << what << ": " << bits.status();
    EXPECT_TRUE(*bits == quiet_) << what;
  }

  std::string Folder() const { return absl::StrCat("tests/golden/", GetParam()); }

  Bits quiet_;
};

TEST_P(RowLawTest, HoldsForEveryPrefillChunk) {
  for (int chunk : {1, 7, 64}) {
    ShapeOptions options;
    options.max_step_tokens = chunk;
    ExpectSameBits(options, absl::StrCat("chunks of ", chunk));
  }
}

// The same prompt again, and prompts that begin like it: what comes from the cache has the bits of
// what is computed.
TEST_P(RowLawTest, HoldsForPrefixCacheHits) {
  std::vector<int32_t> branch = Prompt(0, 70);
  const std::vector<int32_t> others = Prompt(1, 50);
  branch.insert(branch.end(), others.begin(), others.end());
  const auto observe_branch = [&](Client* client, int n_cached) {
    auto greedy = client->Generate(branch, kOutput);
    EXPECT_EQ(client->n_cached_tokens(), n_cached);
    auto sampled = client->Generate(branch, kOutput, Sampled);
    EXPECT_TRUE(greedy.ok() && sampled.ok());
    return std::pair(greedy.value_or(std::vector<int32_t>()),
                     sampled.value_or(std::vector<int32_t>()));
  };
  ShapeOptions options;
  options.prefix_cache = false;
  std::pair<std::vector<int32_t>, std::vector<int32_t>> quiet_branch;
  {
    auto shape = Shape::Start(Folder(), options);
    ASSERT_TRUE(shape.ok()) << shape.status();
    Client client((*shape)->channel());
    quiet_branch = observe_branch(&client, 0);
  }
  options.prefix_cache = true;
  for (const auto& [kind, chunk] :
       {std::pair(Kind::kLocal, 512), std::pair(Kind::kLocal, 1), std::pair(Kind::kLocal, 7),
        std::pair(Kind::kColocated, 64), std::pair(Kind::kCluster, 33)}) {
    SCOPED_TRACE(absl::StrCat(ShapeName(kind), ", chunks of ", chunk));
    options.kind = kind;
    options.max_step_tokens = chunk;
    auto shape = Shape::Start(Folder(), options);
    ASSERT_TRUE(shape.ok()) << shape.status();
    Client client((*shape)->channel());
    for (int round = 0; round < 2; ++round) {
      auto bits = Observe(&client);  // scores all positions, cached or not
      ASSERT_TRUE(bits.ok()) << bits.status();
      EXPECT_TRUE(*bits == quiet_) << "round " << round;
      EXPECT_EQ(client.n_cached_tokens(), 144);  // nine blocks of 150 tokens
    }
    EXPECT_EQ(observe_branch(&client, 64), quiet_branch);
    EXPECT_EQ(observe_branch(&client, 112), quiet_branch);
  }
}

TEST_P(RowLawTest, HoldsForEveryInstructionSet) {
  for (const char* isa : {"scalar", "avx2", "avx512"}) {
    ShapeOptions options;
    options.isa = isa;
    auto bits = ObserveIn(options);
    if (absl::IsFailedPrecondition(bits.status()) || absl::IsUnimplemented(bits.status())) {
      continue;  // not on this machine
    }
    ExpectSameBits(options, isa);
  }
}

TEST_P(RowLawTest, HoldsForEveryNumberOfThreads) {
  for (int n_threads : {2, 3}) {
    ShapeOptions options;
    options.n_threads = n_threads;
    ExpectSameBits(options, absl::StrCat(n_threads, " threads"));
  }
}

TEST_P(RowLawTest, HoldsInABatchOfOthers) {
  for (int n_lanes : {1, 3}) {
    ShapeOptions options;
    options.n_lanes = n_lanes;
    options.max_step_tokens = 64;
    ExpectSameBitsInABatch(options, absl::StrCat(n_lanes, " lanes"));
  }
}

TEST_P(RowLawTest, HoldsForEveryNumberAndAssignmentOfShards) {
  const std::vector<std::vector<std::string>> assignments = {
      {"all"},
      {"0/2", "1/2"},
      {"0/5", "1/5", "2/5", "3/5", "4/5"},
      {"0:*,1:0-3,2:7,3:0-1", "1:4-7,2:0-6,3:2-7"},
      {"all", "0/2"},  // replicas
  };
  for (const auto& experts : assignments) {
    ShapeOptions options;
    options.kind = Kind::kCluster;
    options.experts = experts;
    ExpectSameBits(options, absl::StrCat(experts.size(), " shards, first ", experts[0]));
  }
}

TEST_P(RowLawTest, HoldsInAClusterWithLanesUnderLoad) {
  ShapeOptions options;
  options.kind = Kind::kCluster;
  options.n_lanes = 3;
  options.max_step_tokens = 48;
  ExpectSameBitsInABatch(options, "cluster, 3 lanes");
}

TEST_P(RowLawTest, HoldsAcrossRestartsOfEveryService) {
  ShapeOptions options;
  options.kind = Kind::kCluster;
  auto shape = Shape::Start(Folder(), options);
  ASSERT_TRUE(shape.ok()) << shape.status();
  Client client((*shape)->channel());
  for (Process* service : {(*shape)->expert(0), (*shape)->expert(1), (*shape)->attention()}) {
    ASSERT_TRUE(service->Restart().ok());
    auto bits = Observe(&client);  // waits for the service
    ASSERT_TRUE(bits.ok()) << bits.status();
    EXPECT_TRUE(*bits == quiet_);
  }
}

TEST_P(RowLawTest, HoldsWhenAttentionIsColocated) {
  ShapeOptions options;
  options.kind = Kind::kColocated;
  ExpectSameBits(options, "colocated");
}

TEST_P(RowLawTest, HoldsForRoundedWiresInEveryShape) {
  ShapeOptions options;
  options.wire_dtype = "bfloat16";
  auto local = ObserveIn(options);
  ASSERT_TRUE(local.ok()) << local.status();
  EXPECT_FALSE(local->score == quiet_.score);  // it does round
  options.kind = Kind::kCluster;
  options.max_step_tokens = 13;
  auto cluster = ObserveIn(options);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  EXPECT_TRUE(*cluster == *local);
}

INSTANTIATE_TEST_SUITE_P(Models, RowLawTest, testing::Values("mixtral/bf16", "llama/f32"),
                         [](const auto& info) {
                           return info.param[0] == 'm' ? "sparse" : "dense";
                         });

}  // namespace
}  // namespace gatefold

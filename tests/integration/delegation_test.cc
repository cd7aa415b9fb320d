// Proof from counters that experts are really computed elsewhere, and what that costs on the wire.

#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/metrics_page.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr char kModel[] = "tests/golden/mixtral/bf16";
constexpr int kModelWidth = 64, kLayers = 4;

// What a routing trace says that a shard was asked for.
struct Asked {
  double n_pairs = 0;                       // (row, expert)
  std::set<std::pair<uint32_t, int>> rows;  // (token, layer), each once
  std::set<int> layers;
};

std::map<std::string, Asked> AskedByShard(const inference::v1::RoutingTrace& trace) {
  std::map<std::string, Asked> asked;
  size_t at = 0;
  for (uint32_t token = 0; token < trace.n_tokens(); ++token) {
    for (int layer = 0; layer < trace.layer_ids_size(); ++layer) {
      for (uint32_t k = 0; k < trace.top_k(); ++k, ++at) {
        Asked& shard = asked[trace.shard_names(static_cast<uint8_t>(trace.shards()[at]))];
        ++shard.n_pairs;
        shard.rows.insert({token, layer});
        shard.layers.insert(layer);
      }
    }
  }
  return asked;
}

TEST(DelegationTest, ShardsComputeWhatTheTraceSaysAndEachRowIsSentOnce) {
  ShapeOptions options;
  options.kind = ShapeOptions::Kind::kCluster;
  options.experts = {"0/3", "1/3", "2/3"};
  options.router_flags = {"--hedge=off"};  // a second call would be counted, too
  options.metrics = true;
  auto shape = Shape::Start(kModel, options);
  ASSERT_TRUE(shape.ok()) << shape.status();
  std::vector<int32_t> tokens;
  for (int i = 0; i < 100; ++i) tokens.push_back(3 + i * 7 % 500);
  Client client((*shape)->channel());
  const auto score = client.ScoreTokens(tokens);
  ASSERT_TRUE(score.ok()) << score.status();
  const std::map<std::string, Asked> asked = AskedByShard(score->routing);
  ASSERT_EQ(asked.size(), 3u);

  const auto router = MetricsPage::Fetch((*shape)->router());
  ASSERT_TRUE(router.ok()) << router.status();
  double n_pairs = 0;
  for (int i = 0; i < 3; ++i) {
    const std::string address = (*shape)->expert_address(i);
    SCOPED_TRACE(address);
    const Asked& shard = asked.at(address);
    const auto value = [&](const std::string& what) {
      return router->Value(
          absl::StrCat("gatefold_router_shard_", what, "{shard=\"", address, "\"}"));
    };
    const double n_rows = static_cast<double>(shard.rows.size());
    const double n_calls = static_cast<double>(shard.layers.size());
    EXPECT_EQ(value("rows_total"), shard.n_pairs);
    // All tokens ride in one step: one message per layer, each row in it once however many of the
    // shard's experts it visits.
    EXPECT_EQ(value("calls_total"), n_calls);
    EXPECT_EQ(value("rows_sent_total"), n_rows);
    EXPECT_LT(n_rows, shard.n_pairs) << "no row visits two experts of this shard: a weak test";
    // float32 rows one way, an answer per (row, expert) the other; beside them two bytes per pair
    // that say which row visits which expert, and a header per call.
    const double row_bytes = kModelWidth * sizeof(float);
    EXPECT_LE(value("sent_bytes_total"), n_rows * row_bytes + 2 * shard.n_pairs + 128 * n_calls);
    EXPECT_LE(value("received_bytes_total"), shard.n_pairs * row_bytes + 128 * n_calls);
    EXPECT_GE(value("received_bytes_total"), shard.n_pairs * row_bytes);

    // The shard's own word.
    const auto expert = MetricsPage::Fetch((*shape)->expert(i));
    ASSERT_TRUE(expert.ok()) << expert.status();
    EXPECT_EQ(expert->Sum("gatefold_expert_tokens_total"), shard.n_pairs);
    n_pairs += shard.n_pairs;
  }
  EXPECT_EQ(n_pairs, 100.0 * kLayers * 2);  // nothing was computed anywhere else
  EXPECT_EQ(router->Sum("gatefold_router_retries_total"), 0);
}

}  // namespace
}  // namespace gatefold

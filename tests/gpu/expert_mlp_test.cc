// Experts on the device: right numbers, and the same bits whatever else is computed beside a row.

#include "gatefold/cuda/expert_mlp.h"

#include <algorithm>
#include <memory>

#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/pack_weights.h"
#include "gatefold/cuda/routed_mlp.h"
#include "gatefold/cuda/visit_plan.h"
#include "tests/gpu/gpu_test.h"
#include "tests/gpu/quantised_reference.h"

namespace gatefold::cuda {
namespace {

// One expert on the host (as the bfloat16 that are multiplied) and on the device.
struct Expert {
  Expert(const ExpertShape& shape, bool biases, uint32_t seed)
      : w1(Weights(shape.d_ff * shape.d_model, shape.d_model, seed)),
        w3(Weights(shape.d_ff * shape.d_model, shape.d_model, seed + 1)),
        w2(Weights(shape.d_model * shape.d_ff, shape.d_ff, seed + 2)),
        b1(RandomFloats(biases ? shape.d_ff : 1, 0.5f, seed + 3)),
        b3(RandomFloats(biases ? shape.d_ff : 1, 0.5f, seed + 4)),
        b2(RandomFloats(biases ? shape.d_model : 1, 0.5f, seed + 5)),
        has_biases(biases),
        w13_tiles(shape.w13().weight_bytes()),
        w2_tiles(shape.w2().weight_bytes()),
        device_b1(b1),
        device_b3(b3),
        device_b2(b2) {
    w13_tiles.Fill(0);
    w2_tiles.Fill(0);
    Pack(shape.w13(), w1, 0, w13_tiles.get());
    Pack(shape.w13(), w3, 1, w13_tiles.get());
    Pack(shape.w2(), w2, 0, w2_tiles.get());
    w1 = Dequantised(shape.format, w1, shape.d_model);
    w3 = Dequantised(shape.format, w3, shape.d_model);
    w2 = Dequantised(shape.format, w2, shape.d_ff);
    device.w13 = w13_tiles.get();
    device.w2 = w2_tiles.get();
    if (biases) {
      device.b1 = device_b1.get();
      device.b3 = device_b3.get();
      device.b2 = device_b2.get();
    }
  }

  static std::vector<uint16_t> Weights(int64_t n, int64_t n_in, uint32_t seed) {
    const std::vector<float> values = RandomFloats(n, 1.0f / std::sqrt(static_cast<float>(n_in)), seed);
    std::vector<uint16_t> bits(n);
    std::transform(values.begin(), values.end(), bits.begin(), ToBF16);
    return bits;
  }
  // In two parts, as a loader that streams does.
  static void Pack(const TileShape& shape, const std::vector<uint16_t>& rows, int matrix, char* tiles) {
    const DeviceArray<uint16_t> staging(rows);
    const int64_t first = std::min<int64_t>(shape.n_out, 37);
    EXPECT_CUDA(PackWeights(shape, staging.get(), 0, first, matrix, tiles, nullptr));
    EXPECT_CUDA(PackWeights(shape, staging.get() + first * shape.n_in, first, shape.n_out - first, matrix,
                            tiles, nullptr));
    EXPECT_CUDA(cudaDeviceSynchronize());
  }

  // In float64, rounding to bfloat16 where the device does.
  void Reference(const ExpertShape& shape, const float* x, double* y) const {
    std::vector<double> h(shape.d_ff), rounded(shape.d_model);
    for (int64_t i = 0; i < shape.d_model; ++i) rounded[i] = RoundBF16(x[i]);
    for (int64_t f = 0; f < shape.d_ff; ++f) {
      double gate = has_biases ? b1[f] : 0, up = has_biases ? b3[f] : 0;
      for (int64_t i = 0; i < shape.d_model; ++i) {
        gate += FromBF16(w1[f * shape.d_model + i]) * rounded[i];
        up += FromBF16(w3[f * shape.d_model + i]) * rounded[i];
      }
      h[f] = RoundBF16(gate / (1 + std::exp(-gate)) * up);
    }
    for (int64_t d = 0; d < shape.d_model; ++d) {
      y[d] = has_biases ? b2[d] : 0;
      for (int64_t f = 0; f < shape.d_ff; ++f) y[d] += FromBF16(w2[d * shape.d_ff + f]) * h[f];
    }
  }

  std::vector<uint16_t> w1, w3, w2;
  std::vector<float> b1, b3, b2;
  bool has_biases;
  DeviceArray<char> w13_tiles, w2_tiles;
  DeviceArray<float> device_b1, device_b3, device_b2;
  DeviceExpert device;
};

// A batch of visits: expert e is visited by n_rows[e] rows.
struct Batch {
  std::vector<std::vector<int32_t>> rows, slots;
  std::vector<ExpertVisits> visits;

  // Row numbers go round over n_x rows; slots are handed out backwards.
  Batch(const std::vector<std::unique_ptr<Expert>>& experts, const std::vector<int>& n_rows, int n_x) {
    int n_slots = 0;
    for (int n : n_rows) n_slots += n;
    int next = 0, slot = n_slots;
    rows.resize(n_rows.size());
    slots.resize(n_rows.size());
    for (size_t e = 0; e < n_rows.size(); ++e) {
      for (int i = 0; i < n_rows[e]; ++i) {
        rows[e].push_back(next++ % n_x);
        slots[e].push_back(--slot);
      }
      visits.push_back({&experts[e]->device, rows[e].data(), slots[e].data(), n_rows[e]});
    }
  }
  int n_slots() const {
    int n = 0;
    for (const auto& s : slots) n += static_cast<int>(s.size());
    return n;
  }
};

class ExpertMlpTest : public GpuTest {
 protected:
  void Make(const ExpertShape& shape, int n_experts, bool biases, int n_x) {
    shape_ = shape;
    for (int e = 0; e < n_experts; ++e) {
      experts_.push_back(std::make_unique<Expert>(shape, biases, 100 * e + 1));
    }
    x_ = RandomFloats(n_x * shape.d_model, 1.0f, 7);
    device_x_ = std::make_unique<DeviceArray<float>>(x_);
    mlp_ = std::make_unique<ExpertMlp>(shape);
  }

  // [n_slots, d_model]; NaN where nothing was written.
  std::vector<float> Run(const Batch& batch) {
    DeviceArray<float> y(static_cast<size_t>(batch.n_slots()) * shape_.d_model);
    y.Fill(0xFF);
    EXPECT_CUDA(mlp_->Run(batch.visits.data(), static_cast<int>(batch.visits.size()), device_x_->get(),
                          y.get(), nullptr));
    EXPECT_CUDA(cudaDeviceSynchronize());
    return y.Read();
  }

  void ExpectNumbers(const Batch& batch) {
    const std::vector<float> y = Run(batch);
    std::vector<double> expected(y.size());
    for (size_t e = 0; e < batch.rows.size(); ++e) {
      for (size_t i = 0; i < batch.rows[e].size(); ++i) {
        experts_[e]->Reference(shape_, &x_[batch.rows[e][i] * shape_.d_model],
                               &expected[batch.slots[e][i] * shape_.d_model]);
      }
    }
    // float32 sums, and the few values of silu(gate) * up that round the other way.
    EXPECT_LT(RelativeError(y, expected), 5e-4);
  }

  // Every row has the bits that it has alone.
  void ExpectBitsAsAlone(const std::vector<int>& n_rows) {
    const int n_x = static_cast<int>(x_.size() / shape_.d_model);
    const Batch batch(experts_, n_rows, n_x);
    const std::vector<float> together = Run(batch);
    for (size_t e = 0; e < n_rows.size(); ++e) {
      for (size_t i = 0; i < batch.rows[e].size(); i += 1 + batch.rows[e].size() / 9) {
        const int32_t slot = 0;
        const ExpertVisits visit{&experts_[e]->device, &batch.rows[e][i], &slot, 1};
        DeviceArray<float> y(shape_.d_model);
        y.Fill(0xFF);
        EXPECT_CUDA(mlp_->Run(&visit, 1, device_x_->get(), y.get(), nullptr));
        EXPECT_CUDA(cudaDeviceSynchronize());
        const std::vector<float> alone = y.Read();
        ASSERT_EQ(0, std::memcmp(alone.data(), &together[batch.slots[e][i] * shape_.d_model],
                                 shape_.d_model * sizeof(float)))
            << "expert " << e << ", row " << i << " of " << n_rows[e];
      }
    }
  }

  ExpertShape shape_;
  std::vector<std::unique_ptr<Expert>> experts_;
  std::vector<float> x_;
  std::unique_ptr<DeviceArray<float>> device_x_;
  std::unique_ptr<ExpertMlp> mlp_;
};

TEST_F(ExpertMlpTest, ComputesFewRows) {
  Make({256, 384}, 3, false, 5);
  ExpectNumbers(Batch(experts_, {1, 4, 7}, 5));
}

TEST_F(ExpertMlpTest, ComputesGroupsOfVeryDifferentSizes) {
  Make({128, 192}, 4, false, 50);
  for (int most : {9, 30, 64, 65, 300}) {
    SCOPED_TRACE(most);
    ExpectNumbers(Batch(experts_, {most, 1, 0, 8}, 50));
  }
}

TEST_F(ExpertMlpTest, ComputesSizesThatFillNoTile) {
  Make({72, 40}, 2, true, 20);
  ExpectNumbers(Batch(experts_, {3, 12}, 20));
  ExpectNumbers(Batch(experts_, {140, 12}, 20));
}

TEST_F(ExpertMlpTest, AddsBiases) {
  Make({256, 320}, 2, true, 9);
  ExpectNumbers(Batch(experts_, {9, 2}, 9));
}

TEST_F(ExpertMlpTest, ComputesInt8Weights) {
  Make({128, 192, WeightFormat::kInt8}, 3, true, 50);
  for (int most : {2, 30, 65, 300}) {
    ExpectNumbers(Batch(experts_, {most, 1, 8}, 50));
    ExpectBitsAsAlone({most, 1, 8});
  }
}

TEST_F(ExpertMlpTest, ComputesInt4Weights) {
  Make({72, 104, WeightFormat::kInt4}, 3, true, 50);
  for (int most : {2, 30, 65, 300}) {
    ExpectNumbers(Batch(experts_, {most, 1, 8}, 50));
    ExpectBitsAsAlone({most, 1, 8});
  }
}

// 300 rows are 160 and 144, 270 are 144 and 128, and 200 are one unit.
TEST(WidestFirstTest, OrdersByTheWidestUnit) {
  const auto order = [](const std::vector<int>& n_rows) {
    std::vector<ExpertVisits> visits;
    for (int n : n_rows) visits.push_back({.n_rows = n});
    std::vector<int> ordered;
    for (const ExpertVisits* visit : WidestFirst(WeightFormat::kBF16, visits.data(), static_cast<int>(visits.size()))) {
      ordered.push_back(visit->n_rows);
    }
    return ordered;
  };
  EXPECT_EQ(order({10, 270, 300, 200, 3}), (std::vector{200, 300, 270, 10, 3}));
  EXPECT_EQ(order({3, 64, 10}), (std::vector{3, 64, 10}));  // narrow
  EXPECT_EQ(order({}), std::vector<int>());
}

TEST_F(ExpertMlpTest, ComputesNothingForNoRows) {
  Make({64, 64}, 2, false, 1);
  EXPECT_TRUE(Run(Batch(experts_, {0, 0}, 1)).empty());
}

// The row law.
TEST_F(ExpertMlpTest, ARowHasTheSameBitsInEveryBatch) {
  Make({512, 1792}, 3, false, 400);
  for (const std::vector<int>& n_rows : std::vector<std::vector<int>>{
           {2, 1, 1}, {8, 3, 0}, {16, 9, 1}, {17, 32, 5}, {33, 64, 2}, {65, 1, 30}, {129, 256, 7}, {300, 400, 1}}) {
    SCOPED_TRACE(*std::max_element(n_rows.begin(), n_rows.end()));
    ExpectBitsAsAlone(n_rows);
  }
}

// Routes on the device: each row's answers are those that the host's plan gives, and each visit is counted.
class RoutedMlpTest : public ExpertMlpTest {
 protected:
  // pick: an expert that a row may visit, by (row, k); taken twice it moves on to the next.
  void Expect(int n_rows, int top_k, int (*pick)(int row, int k)) {
    SCOPED_TRACE(testing::Message() << n_rows << " rows");
    const int n_experts = static_cast<int>(experts_.size());
    std::vector<int32_t> routes;
    std::vector<std::vector<int32_t>> rows(n_experts), slots(n_experts);
    for (int row = 0; row < n_rows; ++row) {
      std::vector<int32_t> mine;
      for (int k = 0; k < top_k; ++k) {
        int expert = pick(row, k) % n_experts;
        while (std::find(mine.begin(), mine.end(), expert) != mine.end()) expert = (expert + 1) % n_experts;
        mine.push_back(expert);
      }
      std::sort(mine.begin(), mine.end());
      for (int32_t expert : mine) {
        rows[expert].push_back(row);
        slots[expert].push_back(static_cast<int32_t>(routes.size()));
        routes.push_back(expert);
      }
    }
    std::vector<ExpertVisits> visits;
    std::vector<DeviceExpert> table;
    for (int e = 0; e < n_experts; ++e) {
      table.push_back(experts_[e]->device);
      if (!rows[e].empty()) {
        visits.push_back({&experts_[e]->device, rows[e].data(), slots[e].data(), static_cast<int>(rows[e].size())});
      }
    }
    const DeviceArray<float> expected(routes.size() * shape_.d_model), y(routes.size() * shape_.d_model);
    EXPECT_CUDA(mlp_->Run(visits.data(), static_cast<int>(visits.size()), device_x_->get(), expected.get(),
                          nullptr));
    const DeviceArray<DeviceExpert> device_table(table);
    const DeviceArray<int32_t> device_routes(routes);
    const DeviceArray<uint64_t> n_visits(std::vector<uint64_t>(n_experts, 5));
    if (routed_ == nullptr) routed_ = std::make_unique<RoutedMlp>(shape_, n_experts, top_k);
    EXPECT_CUDA(routed_->Run(device_table.get(), device_routes.get(), n_rows, device_x_->get(), y.get(),
                             n_visits.get(), nullptr));
    EXPECT_CUDA(cudaDeviceSynchronize());
    EXPECT_EQ(FirstDifference(y.Read(), expected.Read()), -1);
    std::vector<uint64_t> counted;
    for (int e = 0; e < n_experts; ++e) counted.push_back(5 + rows[e].size());
    EXPECT_EQ(n_visits.Read(), counted);
  }

  std::unique_ptr<RoutedMlp> routed_;
};

// The same order as on the host, and what lies before each group.
TEST_F(RoutedMlpTest, PlansGroupsWithTheWidestUnitsFirst) {
  const std::vector<int> counts = {10, 270, 0, 300, 200};
  std::vector<int32_t> routes;
  for (int e = 0; e < 5; ++e) routes.insert(routes.end(), counts[e], e);
  const int n_rows = static_cast<int>(routes.size()), n_padded = n_rows + 5 * 7;
  GroupedMatMul up, down;
  up.shape = ExpertShape{128, 192}.w13();
  down.shape = ExpertShape{128, 192}.w2();
  up.unit_rows = down.unit_rows = 256;
  const DeviceArray<MatMulGroup> up_groups(5), down_groups(5);
  const DeviceArray<GroupCounts> up_counts(1), down_counts(1);
  const DeviceArray<int32_t> sources(n_padded), slots(n_padded), device_routes(routes);
  const DeviceArray<uint64_t> n_visits(std::vector<uint64_t>(5, 0));
  const DeviceArray<DeviceExpert> table(std::vector<DeviceExpert>(5));
  const VisitPlan plan = {up_groups.get(),   down_groups.get(), up_counts.get(),
                          down_counts.get(), sources.get(),     slots.get()};
  EXPECT_CUDA(PlanVisits(table.get(), 5, device_routes.get(), n_rows, 1, up, down, plan, n_visits.get(), nullptr));
  EXPECT_CUDA(cudaDeviceSynchronize());
  const std::vector<MatMulGroup> groups = down_groups.Read();
  const GroupCounts total = down_counts.Read()[0];
  ASSERT_EQ(total.n_groups, 4);
  const int places = UnitPlaces(down.shape, 256);
  int64_t row = 0;
  int unit = 0;
  const int expected[] = {200, 300, 270, 10};
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(groups[i].n_rows, expected[i]);
    EXPECT_EQ(groups[i].first_row, row);
    EXPECT_EQ(groups[i].first_unit, unit);
    row += RoundUp(expected[i], kRowsAlign);
    unit += places * CutRows(WeightFormat::kBF16, 256, expected[i]).n_units;
  }
  EXPECT_EQ(total.n_rows, row);
  EXPECT_EQ(total.n_units, unit);
}

TEST_F(RoutedMlpTest, GivesTheBitsOfTheHostsPlan) {
  Make({128, 192}, 9, true, 300);
  for (int n_rows : {1, 8, 20, 70, 300, 33}) {
    Expect(n_rows, 3, [](int row, int k) { return row * row * 7 + k * 5 + row / 3; });  // scattered
    Expect(n_rows, 3, [](int, int k) { return k + 4; });                               // all to three
    Expect(n_rows, 3, [](int row, int k) { return row == 0 ? 6 + k : k; });            // one apart
  }
}

TEST_F(RoutedMlpTest, GivesTheBitsOfTheHostsPlanWithQuantisedWeights) {
  for (WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    experts_.clear();
    routed_.reset();
    Make({128, 192, format}, 5, false, 150);
    for (int n_rows : {3, 150}) Expect(n_rows, 2, [](int row, int k) { return row * 3 + k * 2; });
    Expect(20, 2, [](int, int k) { return k + 1; });  // more than a unit is expected to have
  }
}

TEST_F(RoutedMlpTest, PlansForMoreExpertsThanABlockHasThreads) {
  Make({64, 64}, 260, false, 40);
  for (int n_rows : {1, 40}) Expect(n_rows, 4, [](int row, int k) { return row * 37 + k * 71 + 255; });
}

// A dense layer: every row to all slices.
TEST_F(RoutedMlpTest, TakesAllRowsToAllExperts) {
  Make({72, 40}, 4, false, 130);
  for (int n_rows : {1, 9, 130}) Expect(n_rows, 4, [](int, int k) { return k; });
}

// One expert more each time, of which each has one row: room for rows is enough from the first time on.
TEST_F(ExpertMlpTest, MoreExpertsTakeNoMoreRoomForRows) {
  constexpr int kExperts = 26;
  Make({64, 64}, kExperts, false, kExperts);
  size_t before = 0, after = 0, total = 0;
  EXPECT_CUDA(cudaMemGetInfo(&before, &total));
  for (int n = 1; n <= kExperts; ++n) Run(Batch(experts_, std::vector<int>(n, 1), kExperts));
  EXPECT_CUDA(cudaMemGetInfo(&after, &total));
  EXPECT_LT(before - after, size_t{16} << 20);
}

// The host is ahead of the device: what it sends for a batch must not change one that is under way.
TEST_F(ExpertMlpTest, BatchesMayBeSentWithoutWaiting) {
  Make({72, 40}, 3, false, 60);
  std::vector<Batch> batches;
  std::vector<std::vector<float>> expected;
  std::vector<std::unique_ptr<DeviceArray<float>>> answers;
  for (const std::vector<int>& n_rows : {std::vector<int>{40, 0, 9}, {1, 2, 3}, {0, 60, 5}}) {
    batches.emplace_back(experts_, n_rows, 60);
    expected.push_back(Run(batches.back()));
    answers.push_back(std::make_unique<DeviceArray<float>>(expected.back().size()));
  }
  for (size_t i = 0; i < batches.size(); ++i) {
    EXPECT_CUDA(mlp_->Run(batches[i].visits.data(), static_cast<int>(batches[i].visits.size()),
                          device_x_->get(), answers[i]->get(), nullptr));
  }
  for (size_t i = 0; i < batches.size(); ++i) {
    EXPECT_EQ(FirstDifference(answers[i]->Read(), expected[i]), -1) << i;
  }
}

TEST_F(ExpertMlpTest, ARowHasTheSameBitsTwice) {
  Make({512, 1024}, 2, false, 300);
  const Batch batch(experts_, {300, 20}, 300);
  const std::vector<float> first = Run(batch);
  for (int i = 0; i < 20; ++i) {
    const std::vector<float> again = Run(batch);
    ASSERT_EQ(0, std::memcmp(first.data(), again.data(), first.size() * sizeof(float))) << i;
  }
}

}  // namespace
}  // namespace gatefold::cuda

// Both kernels of the grouped product, whichever the device would choose: right numbers and the row law.

#include "gatefold/cuda/grouped_matmul.h"

#include <cmath>
#include <functional>
#include <numeric>

#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/pack_weights.h"
#include "tests/gpu/gpu_test.h"
#include "tests/gpu/quantised_reference.h"

namespace gatefold::cuda {
namespace {

class GroupedMatMulTest : public GpuTest, public testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    cudaDeviceProp device;
    EXPECT_CUDA(cudaGetDeviceProperties(&device, 0));
    n_processors_ = device.multiProcessorCount;
    if (hopper() && device.major != 9) GTEST_SKIP() << "skipped: needs compute capability 9";
  }
  bool hopper() const { return GetParam(); }

  // y [n_rows, n_out] = x w, one group.
  std::vector<float> Multiply(const TileShape& shape, const char* tiles, const std::vector<float>& x,
                              int n_rows) {
    std::vector<float> y = MultiplyGroups(shape, tiles, x, {n_rows});
    y.resize(n_rows * shape.n_out);
    return y;
  }

  // The same for several groups, each of the first rows of x; their rows one after another, each
  // group's rounded up to kRowsAlign, what lies between is NaN. unit_rows: other than what is chosen
  // for them. Of two matrices: what the gate leaves.
  std::vector<float> MultiplyGroups(const TileShape& shape, const char* tiles,
                                    const std::vector<float>& x, const std::vector<int>& n_rows,
                                    int unit_rows = 0) {
    GroupedMatMul work;
    work.shape = shape;
    std::vector<MatMulGroup> host_groups;
    for (int n : n_rows) host_groups.push_back({tiles, nullptr, nullptr, 0, n, 0});
    const int64_t padded = AssignUnits(host_groups.data(), static_cast<int>(n_rows.size()), &work);
    if (unit_rows > 0) {
      work.unit_rows = unit_rows;
      work.n_units = 0;
      for (MatMulGroup& group : host_groups) {
        group.first_unit = work.n_units;
        work.n_units += UnitPlaces(shape, unit_rows) * CutRows(shape.format, unit_rows, group.n_rows).n_units;
      }
    }
    const DeviceArray<MatMulGroup> groups(host_groups);
    std::vector<int32_t> sources(padded, -1);
    for (const MatMulGroup& group : host_groups) {
      for (int i = 0; i < group.n_rows; ++i) sources[group.first_row + i] = i;
    }
    const DeviceArray<int32_t> device_sources(sources);
    const DeviceArray<float> device_x(x);
    DeviceArray<char> activations(ActivationBytes(padded, shape.n_in));
    DeviceArray<float> y(static_cast<size_t>(padded) * shape.n_out);
    y.Fill(0xFF);
    EXPECT_CUDA(GatherActivations(device_x.get(), device_sources.get(), groups.get(), work.n_groups,
                                  padded, shape.n_in, activations.get(), nullptr));
    DeviceArray<UnitTurns> turns(1);
    turns.Fill(0);
    work.turns = turns.get();
    work.groups = groups.get();
    work.x = activations.get();
    DeviceArray<uint16_t> gated(ActivationBytes(padded, shape.n_out) / 2);
    if (shape.two_matrices) {
      work.epilogue = Epilogue::kGatedActivations;
      work.activations = gated.get();
    } else {
      work.y = y.get();
      work.y_stride = shape.n_out;
    }
    EXPECT_CUDA(hopper() ? LaunchSm90(work, n_processors_, nullptr) : LaunchSm80(work, nullptr));
    EXPECT_CUDA(cudaDeviceSynchronize());
    EXPECT_EQ(turns.Read()[0].n_taken, 0);
    EXPECT_EQ(turns.Read()[0].n_ended, 0);
    std::vector<float> rows = y.Read();
    if (!shape.two_matrices) return rows;
    const std::vector<uint16_t> bits = gated.Read();
    for (const MatMulGroup& group : host_groups) {
      const int64_t rounded = RoundUp(group.n_rows, kRowsAlign);
      const int64_t begin = group.first_row * RoundUp(shape.n_out, kInputsAlign);
      for (int64_t row = 0; row < group.n_rows; ++row) {
        for (int64_t out = 0; out < shape.n_out; ++out) {
          rows[(group.first_row + row) * shape.n_out + out] =
              FromBF16(bits[begin + ActivationOffset(row, out, rounded) / 2]);
        }
      }
    }
    return rows;
  }

  // Tiles of `weights` [shape.n_out, shape.n_in], as either matrix.
  static void Pack(const TileShape& shape, const std::vector<uint16_t>& weights, DeviceArray<char>* tiles) {
    const DeviceArray<uint16_t> rows(weights);
    tiles->Fill(0);
    for (int matrix = 0; matrix < (shape.two_matrices ? 2 : 1); ++matrix) {
      EXPECT_CUDA(PackWeights(shape, rows.get(), 0, shape.n_out, matrix, tiles->get(), nullptr));
    }
    EXPECT_CUDA(cudaDeviceSynchronize());
  }

  int n_processors_ = 0;
};

std::vector<uint16_t> RandomWeights(const TileShape& shape) {
  const std::vector<float> values = RandomFloats(shape.n_out * shape.n_in, 0.1f, 3);
  std::vector<uint16_t> bits(values.size());
  for (size_t i = 0; i < values.size(); ++i) bits[i] = ToBF16(values[i]);
  return bits;
}

constexpr int kNumsRows[] = {1, 8, 9, 16, 31, 64, 65, 97, 129, 161, 193, 225, 256, 257, 290};

TEST_P(GroupedMatMulTest, MatchesFloat64AndKeepsItsBits) {
  for (const TileShape& shape : {TileShape{64, 128}, TileShape{200, 1000}, TileShape{384, 96}}) {
    SCOPED_TRACE(testing::Message() << shape.n_out << " x " << shape.n_in);
    const std::vector<uint16_t> bits = RandomWeights(shape);
    DeviceArray<char> tiles(shape.weight_bytes());
    Pack(shape, bits, &tiles);
    const int most = 300;
    const std::vector<float> x = RandomFloats(most * shape.n_in, 1.0f, 5);
    const std::vector<float> all = Multiply(shape, tiles.get(), x, most);
    std::vector<double> expected(all.size());
    for (int m = 0; m < most; ++m) {
      for (int64_t o = 0; o < shape.n_out; ++o) {
        double sum = 0;
        for (int64_t i = 0; i < shape.n_in; ++i) {
          sum += FromBF16(bits[o * shape.n_in + i]) * RoundBF16(x[m * shape.n_in + i]);
        }
        expected[m * shape.n_out + o] = sum;
      }
    }
    EXPECT_LT(RelativeError(all, expected), 1e-5);
    for (int n_rows : kNumsRows) {
      const std::vector<float> some = Multiply(shape, tiles.get(), x, n_rows);
      ASSERT_EQ(0, std::memcmp(some.data(), all.data(), some.size() * sizeof(float))) << n_rows;
    }
  }
}

// On the host alone, so that it runs everywhere.
struct Cut {
  int unit_rows, n_units;   // of all groups
  std::vector<int> widths;  // of the first group's units
};
Cut CutIntoUnits(const TileShape& shape, const std::vector<int>& n_rows) {
  GroupedMatMul work;
  work.shape = shape;
  std::vector<MatMulGroup> groups;
  for (int n : n_rows) groups.push_back({nullptr, nullptr, nullptr, 0, n, 0});
  AssignUnits(groups.data(), static_cast<int>(groups.size()), &work);
  const RowCut rows = CutRows(shape.format, work.unit_rows, n_rows[0]);
  Cut cut{work.unit_rows, work.n_units, {}};
  for (int i = 0; i < rows.n_units; ++i) {
    EXPECT_EQ(rows.Begin(i), std::accumulate(cut.widths.begin(), cut.widths.end(), 0));
    cut.widths.push_back(rows.Width(i));
  }
  return cut;
}

TEST(AssignUnitsTest, FewRowsAreNarrowUnitsOfOneTile) {
  const Cut cut = CutIntoUnits({4096, 14336}, {9, 2, 0});
  EXPECT_EQ(cut.unit_rows, 16);
  EXPECT_EQ(cut.n_units, 2 * 64);
  EXPECT_EQ(CutIntoUnits({4096, 14336}, {64}).unit_rows, 64);
}

TEST(AssignUnitsTest, WideUnitsAreAsEvenAsTheirStepsAllow) {
  const Cut cut = CutIntoUnits({4096, 14336}, {270});
  EXPECT_EQ(cut.unit_rows, 256);
  EXPECT_EQ(cut.widths, (std::vector{144, 128}));
  EXPECT_EQ(cut.n_units, 2 * 16);  // of four tiles
  EXPECT_EQ(CutIntoUnits({4096, 14336}, {1060}).widths, (std::vector{224, 224, 208, 208, 208}));
  EXPECT_EQ(CutIntoUnits({4096, 14336}, {1024}).widths, (std::vector{256, 256, 256, 256}));
  EXPECT_EQ(CutIntoUnits({4096, 14336, false, WeightFormat::kInt8}, {270}).widths, (std::vector{192, 128}));
  // All rows fit either: the one with more stages of copies under way.
  EXPECT_EQ(CutIntoUnits({4096, 14336}, {100, 3}).unit_rows, 128);
}

class GatherTest : public GpuTest {};

// Few rows, which are cut into slices, and many; rows that can be read by fours, and such that
// cannot.
TEST_F(GatherTest, PutsRoundedRowsWhereProductsReadThem) {
  for (int64_t n_in : {8, 30, 96, 1000, 4096}) {
    for (const std::vector<int>& n_rows :
         {std::vector{1}, std::vector{3, 0, 17}, std::vector{700}, std::vector{2100}}) {
      if (n_in * n_rows[0] > 3'000'000) continue;  // takes an emulated device long
      GroupedMatMul work;
      work.shape = {64, n_in};
      std::vector<MatMulGroup> groups;
      for (int n : n_rows) groups.push_back({nullptr, nullptr, nullptr, 0, n, 0});
      const int64_t padded = AssignUnits(groups.data(), static_cast<int>(groups.size()), &work);
      std::vector<int32_t> sources(padded, -1);
      for (const MatMulGroup& group : groups) {
        for (int i = 0; i < group.n_rows; ++i)
          sources[group.first_row + i] = (i * 7 + 3) % n_rows[0];
      }
      const std::vector<float> x = RandomFloats(n_rows[0] * n_in, 1.0f, n_in);
      const DeviceArray<float> device_x(x);
      const DeviceArray<MatMulGroup> device_groups(groups);
      const DeviceArray<int32_t> device_sources(sources);
      const DeviceArray<uint16_t> activations(ActivationBytes(padded, n_in) / 2);
      EXPECT_CUDA(GatherActivations(device_x.get(), device_sources.get(), device_groups.get(),
                                    work.n_groups, padded, n_in, activations.get(), nullptr));
      EXPECT_CUDA(cudaDeviceSynchronize());
      const std::vector<uint16_t> got = activations.Read();
      const int64_t n_blocks = RoundUp(n_in, kInputsAlign) / kTileInputs;
      int64_t n_wrong = 0;
      for (const MatMulGroup& group : groups) {
        const int64_t rounded = RoundUp(group.n_rows, kRowsAlign);
        for (int64_t row = 0; row < rounded; ++row) {
          const int32_t source = sources[group.first_row + row];
          for (int64_t i = 0; i < n_blocks * kTileInputs; ++i) {
            const float expected = source < 0 || i >= n_in ? 0.0f : RoundBF16(x[source * n_in + i]);
            const int64_t at = group.first_row * n_blocks * 128 + ActivationOffset(row, i, rounded);
            n_wrong += FromBF16(got[at / 2]) != expected;
          }
        }
      }
      EXPECT_EQ(n_wrong, 0) << n_rows[0] << " rows of " << n_in;
    }
  }
}

// By the instruction of each width there is, in either kernel of wide units, and in narrow ones.
TEST_P(GroupedMatMulTest, UnitsOfEveryWidthGiveTheSameBits) {
  for (WeightFormat format : {WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt4}) {
    const WideUnits wide = WideUnitsOf(format);
    std::vector<int> n_rows;
    for (int width = wide.step; width <= wide.most; width += wide.step) n_rows.push_back(width - 3);
    for (const TileShape& shape : {TileShape{200, 130, false, format}, TileShape{72, 130, true, format}}) {
      SCOPED_TRACE(testing::Message() << FormatName(format) << ", " << shape.two_matrices);
      DeviceArray<char> tiles(shape.weight_bytes());
      Pack(shape, RandomWeights(shape), &tiles);
      const std::vector<float> x = RandomFloats(wide.most * shape.n_in, 1.0f, 5);
      const auto multiply = [&](int unit_rows) {
        return MultiplyGroups(shape, tiles.get(), x, n_rows, unit_rows);
      };
      const std::vector<float> narrow = multiply(kNarrowUnitRows);
      EXPECT_EQ(-1, FirstDifference(multiply(wide.most), narrow));
      EXPECT_EQ(-1, FirstDifference(multiply(wide.fewer), narrow));
    }
  }
}

TEST_P(GroupedMatMulTest, GroupsBesideDoNotShow) {
  const TileShape shape{200, 256};
  DeviceArray<char> tiles(shape.weight_bytes());
  Pack(shape, RandomWeights(shape), &tiles);
  const std::vector<float> x = RandomFloats(600 * shape.n_in, 1.0f, 5);
  const std::vector<int> n_rows = {3, 600, 17, 100, 33, 270, 1, 60};
  const std::vector<float> together = MultiplyGroups(shape, tiles.get(), x, n_rows);
  int64_t first = 0;
  for (int n : n_rows) {
    const std::vector<float> alone = Multiply(shape, tiles.get(), x, n);
    ASSERT_EQ(0, std::memcmp(alone.data(), &together[first * shape.n_out],
                             n * shape.n_out * sizeof(float)))
        << n;
    first += RoundUp(n, kRowsAlign);
  }
}

// Bit for bit, so that what is true of bfloat16 weights is true of quantised ones.
TEST_P(GroupedMatMulTest, QuantisedWeightsAreTheBFloat16TheyStandFor) {
  for (WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (const TileShape& shape : {TileShape{64, 128}, TileShape{200, 1000}, TileShape{384, 96}}) {
      SCOPED_TRACE(testing::Message() << FormatName(format) << ", " << shape.n_out << " x " << shape.n_in);
      TileShape quantised = shape;
      quantised.format = format;
      std::vector<uint16_t> weights = RandomWeights(shape);
      std::fill_n(weights.begin(), 2 * kQuantGroup, uint16_t{0});  // groups without a scale
      DeviceArray<char> tiles(shape.weight_bytes()), quantised_tiles(quantised.weight_bytes());
      Pack(shape, Dequantised(format, weights, shape.n_in), &tiles);
      Pack(quantised, weights, &quantised_tiles);
      const std::vector<float> x = RandomFloats(300 * shape.n_in, 1.0f, 5);
      for (int n_rows : kNumsRows) {
        ASSERT_EQ(-1, FirstDifference(Multiply(quantised, quantised_tiles.get(), x, n_rows),
                                      Multiply(shape, tiles.get(), x, n_rows)))
            << n_rows;
      }
    }
  }
}

TEST_P(GroupedMatMulTest, ABrokenWeightShowsInItsOutputAlone) {
  for (WeightFormat format : {WeightFormat::kInt8, WeightFormat::kInt4}) {
    for (uint16_t broken : {0x7fc0, 0x7f80, 0xff80}) {  // NaN and the infinities
      const TileShape shape = {200, 130, false, format};
      std::vector<uint16_t> weights = RandomWeights(shape);
      weights[3 * shape.n_in + 129] = broken;
      DeviceArray<char> tiles(shape.weight_bytes());
      Pack(shape, weights, &tiles);
      const std::vector<float> y =
          Multiply(shape, tiles.get(), RandomFloats(30 * shape.n_in, 1.0f, 5), 30);
      for (size_t i = 0; i < y.size(); ++i) {
        ASSERT_EQ(std::isnan(y[i]), i % shape.n_out == 3) << FormatName(format) << " " << i;
      }
    }
  }
}

TEST(GroupedMatMulArgumentsTest, RowsMayNotBeTooFarApart) {
  MatMulGroup group;
  UnitTurns turns;
  float y = 0;
  const GroupedMatMul work = {.shape = {64, 64, false},
                              .groups = &group,
                              .n_groups = 1,
                              .unit_rows = 8,
                              .n_units = 1,
                              .turns = &turns,
                              .x = &y,
                              .y = &y,
                              .y_stride = kMaxYStride};
  EXPECT_EQ(Launch(work, nullptr), cudaErrorInvalidValue);
}

INSTANTIATE_TEST_SUITE_P(Kernels, GroupedMatMulTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Sm90" : "Sm80"; });

}  // namespace
}  // namespace gatefold::cuda

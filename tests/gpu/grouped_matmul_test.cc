// Both kernels of the grouped product, whichever the device would choose: right numbers and the row law.

#include "gatefold/cuda/grouped_matmul.h"

#include <functional>

#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/pack_weights.h"
#include "tests/gpu/gpu_test.h"

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
    GroupedMatMul work;
    work.shape = shape;
    MatMulGroup group{tiles, nullptr, nullptr, 0, n_rows, 0};
    const int64_t padded = AssignUnits(&group, 1, &work);
    const DeviceArray<MatMulGroup> groups(std::vector<MatMulGroup>{group});
    std::vector<int32_t> sources(padded, -1);
    for (int i = 0; i < n_rows; ++i) sources[i] = i;
    const DeviceArray<int32_t> device_sources(sources);
    const DeviceArray<float> device_x(x);
    DeviceArray<char> activations(ActivationBytes(n_rows, shape.n_in));
    DeviceArray<float> y(static_cast<size_t>(n_rows) * shape.n_out);
    y.Fill(0xFF);
    EXPECT_CUDA(GatherActivations(device_x.get(), device_sources.get(), groups.get(), 1, padded,
                                  shape.n_in, activations.get(), nullptr));
    work.groups = groups.get();
    work.x = activations.get();
    work.y = y.get();
    work.y_stride = shape.n_out;
    EXPECT_CUDA(hopper() ? LaunchSm90(work, n_processors_, nullptr) : LaunchSm80(work, nullptr));
    EXPECT_CUDA(cudaDeviceSynchronize());
    return y.Read();
  }

  int n_processors_ = 0;
};

TEST_P(GroupedMatMulTest, MatchesFloat64AndKeepsItsBits) {
  for (const TileShape& shape : {TileShape{64, 128}, TileShape{200, 1000}, TileShape{384, 96}}) {
    SCOPED_TRACE(testing::Message() << shape.n_out << " x " << shape.n_in);
    const std::vector<float> w = RandomFloats(shape.n_out * shape.n_in, 0.1f, 3);
    std::vector<uint16_t> bits(w.size());
    for (size_t i = 0; i < w.size(); ++i) bits[i] = ToBF16(w[i]);
    const DeviceArray<uint16_t> rows(bits);
    DeviceArray<char> tiles(shape.weight_bytes());
    tiles.Fill(0);
    EXPECT_CUDA(PackWeights(shape, rows.get(), 0, shape.n_out, 0, tiles.get(), nullptr));
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
    for (int n_rows : {1, 8, 9, 16, 31, 64, 65, 256}) {
      const std::vector<float> some = Multiply(shape, tiles.get(), x, n_rows);
      ASSERT_EQ(0, std::memcmp(some.data(), all.data(), some.size() * sizeof(float))) << n_rows;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, GroupedMatMulTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "Sm90" : "Sm80"; });

}  // namespace
}  // namespace gatefold::cuda

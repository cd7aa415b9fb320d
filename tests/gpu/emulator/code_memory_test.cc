// Code of a kernel comes to the device when it is first asked for, and there may be no memory for
// it then. A program of its own: no kernel was asked for before.

#include <cstdlib>
#include <functional>

#include "gatefold/cuda/grouped_matmul.h"
#include "gatefold/cuda/router_rows.h"
#include "tests/gpu/gpu_test.h"

namespace gatefold::cuda {
namespace {

class CodeMemoryTest : public GpuTest {
 protected:
  // A device that is full refuses, and once there is memory all is well.
  static void ExpectItIsTriedAgain(const std::function<cudaError_t()>& launch) {
    setenv("GATEFOLD_EMULATOR_MEMORY", "0", 1);
    EXPECT_EQ(launch(), cudaErrorMemoryAllocation);
    EXPECT_EQ(launch(), cudaErrorMemoryAllocation);
    unsetenv("GATEFOLD_EMULATOR_MEMORY");
    EXPECT_CUDA(launch());
    EXPECT_CUDA(cudaDeviceSynchronize());
  }
};

TEST_F(CodeMemoryTest, ARoutersKernelIsTriedAgain) {
  constexpr int kWidth = 64, kExperts = 4;
  const DeviceArray<float> x(std::vector<float>(kWidth, 2.0f)),
      ones(std::vector<float>(kWidth, 1.0f));
  const DeviceArray<float> gate(std::vector<float>(kExperts * kWidth, 1.0f));
  DeviceArray<float> h(kWidth), logits(kExperts);
  ExpectItIsTriedAgain(
      [&] { return RouterNorm(x.get(), ones.get(), 0.0f, h.get(), 1, kWidth, nullptr); });
  EXPECT_EQ(h.Read(), std::vector<float>(kWidth, 1.0f));
  ExpectItIsTriedAgain(
      [&] { return GateLogits(h.get(), gate.get(), logits.get(), 1, kWidth, kExperts, nullptr); });
  EXPECT_EQ(logits.Read(), std::vector<float>(kExperts, kWidth));
}

TEST_F(CodeMemoryTest, AProductIsTriedAgain) {
  constexpr TileShape kShape = {64, 128};
  DeviceArray<char> tiles(kShape.weight_bytes());
  tiles.Fill(0);
  DeviceArray<UnitTurns> turns(1);
  turns.Fill(0);
  for (int n_rows : {8, 80}) {  // narrow units, wide ones
    DeviceArray<char> x(ActivationBytes(n_rows, kShape.n_in));
    x.Fill(0);
    DeviceArray<float> y(n_rows * kShape.n_out);
    MatMulGroup group = {.weights = tiles.get(), .n_rows = n_rows};
    GroupedMatMul work = {.shape = kShape};
    AssignUnits(&group, 1, &work);
    const DeviceArray<MatMulGroup> groups(std::vector<MatMulGroup>{group});
    work.groups = groups.get();
    work.turns = turns.get();
    work.x = x.get();
    work.y = y.get();
    work.y_stride = kShape.n_out;
    ExpectItIsTriedAgain([&] { return Launch(work, nullptr); });
    EXPECT_EQ(y.Read(), std::vector<float>(y.size(), 0.0f));
  }
}

}  // namespace
}  // namespace gatefold::cuda

// A lane's rows on a device have the bits that they have in host memory.

#include "gatefold/engine/device_rows.h"

#include <cuda_runtime.h>

#include <cstring>
#include <random>
#include <vector>

#include "gatefold/checkpoint/temp_dir.h"
#include "gatefold/device/row_transfer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tools/random_model.h"

namespace gatefold {
namespace {

struct Variant {
  const char* name;
  const char* family;
  DType wire_dtype;
};

class DeviceRowsTest : public testing::TestWithParam<Variant> {
 protected:
  void SetUp() override {
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) GTEST_SKIP() << "skipped: no CUDA device";
    RandomModelOptions options;
    options.family = GetParam().family;
    options.experts = 21;
    options.top_k = 5;
    const TempDir folder;
    ASSERT_TRUE(WriteRandomModel(options, folder.path()).ok());
    model_ = *RouterModel::Load(**ModelWeights::Open(folder.path()));
    ASSERT_TRUE(stream_.Prepare().ok());
    auto router = MakeDeviceRouter(*model_, GetParam().wire_dtype, &stream_);
    ASSERT_TRUE(router.ok()) << router.status();
    router_ = *std::move(router);
    on_device_ = *router_->MakeRows(8);
    on_host_ = MakeHostRows(model_.get(), nullptr, GetParam().wire_dtype);
  }

  // Puts the numbers into x or the answers of both.
  void Put(const std::vector<float>& values, float* on_host, float* on_device) {
    const size_t bytes = values.size() * sizeof(float);
    std::memcpy(on_host, values.data(), bytes);
    ASSERT_EQ(cudaMemcpy(on_device, values.data(), bytes, cudaMemcpyHostToDevice), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // the stream does not wait for this copy
  }
  // On the device, when the stream has done what it has to do.
  template <typename T>
  std::vector<T> Get(const T* on_device, size_t n) {
    std::vector<T> values(n);
    EXPECT_EQ(cudaStreamSynchronize(stream_.get()), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(values.data(), on_device, n * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }
  template <typename T>
  void ExpectSame(const T* on_host, const T* on_device, size_t n, const char* what) {
    const std::vector<T> values = Get(on_device, n);
    EXPECT_EQ(std::memcmp(values.data(), on_host, n * sizeof(T)), 0) << what;
  }
  std::vector<float> Random(size_t n) {
    std::vector<float> values(n);
    for (float& value : values) value = std::normal_distribution<float>()(random_);
    return values;
  }

  std::mt19937 random_;
  std::unique_ptr<RouterModel> model_;
  CudaStream stream_;
  std::unique_ptr<DeviceRouter> router_;
  std::unique_ptr<StepRows> on_device_, on_host_;
};

TEST_P(DeviceRowsTest, HaveTheBitsOfHostRows) {
  const ModelConfig& config = model_->config();
  for (int n_rows : {1, 40, 7, 100}) {
    SCOPED_TRACE(n_rows);
    const size_t n = static_cast<size_t>(n_rows) * config.d_model;
    const size_t n_routes = static_cast<size_t>(n_rows) * config.experts_per_row();
    StepResult host_result, device_result;
    ASSERT_TRUE(on_host_->Begin(n_rows).ok() && on_device_->Begin(n_rows).ok());
    on_device_->Enter(StepPhase::kAttention);
    Put(Random(n), on_host_->x(), on_device_->x());
    for (int layer = 0; layer < config.n_layers; ++layer) {
      SCOPED_TRACE(layer);
      on_device_->Enter(StepPhase::kGate);
      for (StepRows* rows : {on_host_.get(), on_device_.get()}) {
        ASSERT_TRUE(rows->RoundX().ok() && rows->NormAndGate(layer).ok());
        std::fill_n(rows->served_by(), n_routes, 0);
      }
      ExpectSame(on_host_->h(), on_device_->h(), n, "h");
      const Routes &host = on_host_->routes(), &device = on_device_->routes();
      ASSERT_EQ(device.experts.size(), n_routes);
      ExpectSame(host.experts.data(), device.experts.data(), n_routes, "experts");
      ExpectSame(host.weights.data(), device.weights.data(), n_routes, "weights");
      Put(Random(n_routes * config.d_model), on_host_->answers(), on_device_->answers());
      on_device_->Enter(StepPhase::kFold);
      ASSERT_TRUE(on_host_->Fold(&host_result).ok() && on_device_->Fold(&device_result).ok());
      ExpectSame(on_host_->x(), on_device_->x(), n, "x");
      ASSERT_TRUE(on_host_->Record(layer, &host_result).ok());
      ASSERT_TRUE(on_device_->Record(layer, &device_result).ok());
    }
    std::vector<SampleRequest> samples = {{.row = n_rows - 1}, {.row = 0}};
    samples.resize(std::min(n_rows, 2));
    const auto host = on_host_->RowsOf(samples), device = on_device_->RowsOf(samples);
    ASSERT_TRUE(host.ok() && device.ok());
    ExpectSame(*host, *device, samples.size() * config.d_model, "sampled rows");
    ASSERT_TRUE(on_host_->End(&host_result).ok() && on_device_->End(&device_result).ok());
    ASSERT_EQ(device_result.trace.size(), host_result.trace.size());
    for (size_t i = 0; i < host_result.trace.size(); ++i) {
      EXPECT_EQ(device_result.trace[i].layer, host_result.trace[i].layer);
      EXPECT_EQ(device_result.trace[i].experts, host_result.trace[i].experts);
      EXPECT_EQ(device_result.trace[i].weights, host_result.trace[i].weights);
      EXPECT_EQ(device_result.trace[i].served_by, host_result.trace[i].served_by);
    }
  }
}

// Some steps are looked at, the others are taken to be like those of as many rows.
TEST_P(DeviceRowsTest, DivideTheirTimeBetweenPhases) {
  for (int step = 0; step < 40; ++step) {
    StepResult result;
    const bool is_long = step % 4 == 0;
    ASSERT_TRUE(on_device_->Begin(is_long ? 40 : 3).ok());
    if (is_long) {  // another kind of step
      on_device_->Enter(StepPhase::kFold);
      ASSERT_TRUE(on_device_->NormAndGate(0).ok() && on_device_->End(&result).ok());
      EXPECT_GT(result.phase_time[static_cast<int>(StepPhase::kFold)], absl::ZeroDuration());
      EXPECT_EQ(result.phase_time[static_cast<int>(StepPhase::kGate)], absl::ZeroDuration());
      continue;
    }
    ASSERT_TRUE(on_host_->Begin(3).ok());
    Put(Random(3 * model_->config().d_model), on_host_->x(), on_device_->x());
    on_device_->Enter(StepPhase::kGate);
    ASSERT_TRUE(on_device_->NormAndGate(0).ok());
    on_device_->Enter(StepPhase::kSample);
    ASSERT_TRUE(on_device_->End(&result).ok());
    EXPECT_GT(result.phase_time[static_cast<int>(StepPhase::kGate)], absl::ZeroDuration()) << step;
    EXPECT_EQ(result.phase_time[static_cast<int>(StepPhase::kFold)], absl::ZeroDuration()) << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, DeviceRowsTest,
                         testing::Values(Variant{"Sparse", "mixtral", DType::kF32},
                                         Variant{"SparseBfloat16", "mixtral", DType::kBF16},
                                         Variant{"Dense", "llama", DType::kF32},
                                         Variant{"DenseBfloat16", "llama", DType::kBF16}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace gatefold

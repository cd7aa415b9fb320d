#include "expert-service/expert_backend.h"

#include <cmath>
#include <set>
#include <vector>

#include "gatefold/kernels/isa.h"
#include "gatefold/tensor/dtype.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

class ExpertBackendTest : public testing::Test {
 protected:
  static ExpertBackendOptions Options(const std::string& name,
                                      WeightKind weights = WeightKind::kCheckpoint) {
    return {.name = name, .weights = weights, .dtype = DType::kBF16, .d_model = 64};
  }
  static auto Choose(const std::string& name) {
    return ChooseExpertBackend(Options(name), nullptr);
  }
};

TEST_F(ExpertBackendTest, RefusesANameThatIsNone) {
  const auto backend = Choose("gpu");
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(backend.status().message()),
              HasSubstr("\"gpu\", must be auto, cpu or cuda"));
}

TEST_F(ExpertBackendTest, AutoIsWhatCanBeHad) {
  const auto cuda = MakeCudaExpertBackend(Options("cuda"));
  const auto chosen = Choose("auto");
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ((*chosen)->name(), cuda.ok() ? "cuda" : "cpu");
  if (!cuda.ok()) {
    EXPECT_EQ((*chosen)->numerics_class(), kernels::NumericsClass());
    // Who insists is told why not.
    const auto insisted = Choose("cuda");
    EXPECT_EQ(insisted.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(insisted.status().message(), cuda.status().message());
    EXPECT_THAT(std::string(cuda.status().message()), HasSubstr("CUDA"));
  }
}

TEST_F(ExpertBackendTest, AutoLeavesToTheCpuWhatADeviceHasNoRoomFor) {
  ExpertBackendOptions options = Options("cuda");
  if (!MakeCudaExpertBackend(options).ok()) GTEST_SKIP() << "skipped: no cuda backend";
  options.experts.assign(1 << 20, {4096, 14336, DType::kBF16});
  const auto cuda = ChooseExpertBackend(options, nullptr);
  EXPECT_EQ(cuda.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(cuda.status().message()), HasSubstr("are free"));
  options.name = "auto";
  EXPECT_EQ((*ChooseExpertBackend(options, nullptr))->name(), "cpu");
}

TEST_F(ExpertBackendTest, KnowsHowWeightsCanBeKept) {
  for (WeightKind kind : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
    EXPECT_EQ(*ParseWeightKind(WeightKindName(kind)), kind);
  }
  EXPECT_THAT(std::string(ParseWeightKind("int2").status().message()),
              HasSubstr("\"int2\", must be checkpoint, int8 or int4"));
}

// What a planner is told about memory is true, and nobody is told that the checkpoint can be had
// back.
TEST_F(ExpertBackendTest, QuantisesOnTheCpu) {
  constexpr int64_t kModel = 256, kHidden = 512;
  const std::vector<char> zeros(kModel * kHidden * sizeof(float));
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const MatrixView up{dtype, kHidden, kModel, kModel, zeros.data()};
    const MatrixView down{dtype, kModel, kHidden, kHidden, zeros.data()};
    const ExpertLayout::Sizes sizes{kModel, kHidden, dtype};
    std::set<uint64_t> classes;
    for (WeightKind weights : {WeightKind::kCheckpoint, WeightKind::kInt8, WeightKind::kInt4}) {
      ExpertBackendOptions options = Options("cpu", weights);
      const auto backend = ChooseExpertBackend(options, nullptr);
      ASSERT_TRUE(backend.ok()) << backend.status();
      const auto expert = (*backend)->Load({.w1 = up, .w3 = up, .w2 = down}, nullptr);
      ASSERT_TRUE(expert.ok()) << expert.status();
      EXPECT_EQ((*backend)->HeldBytes(sizes), (*expert)->size_bytes());
      EXPECT_EQ((*backend)->can_read_back(), weights == WeightKind::kCheckpoint);
      classes.insert((*backend)->numerics_class());
    }
    EXPECT_EQ(classes.size(), 3);
  }
  EXPECT_THAT((*ChooseExpertBackend(Options("cpu", WeightKind::kInt4), nullptr))->device(),
              HasSubstr(", int4"));
}

// Rows in the backend's own memory give the bits that they give in the heap.
void ExpectRowsMayBeAnywhere(ExpertBackend* backend) {
  constexpr int kModel = 64, kHidden = 96, kRows = 5;
  std::vector<uint16_t> weights(kModel * kHidden);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = FloatToBF16(std::sin(i * 0.7f) / 8);
  const MatrixView up{DType::kBF16, kHidden, kModel, kModel, weights.data()};
  const MatrixView down{DType::kBF16, kModel, kHidden, kHidden, weights.data()};
  const auto expert = *backend->Load({.w1 = up, .w3 = up, .w2 = down}, nullptr);
  const std::vector<int32_t> rows = {0, 2, 4}, slots = {2, 0, 1};
  std::vector<std::vector<float>> answers;
  for (const HostMemory& memory : {HeapMemory(), backend->row_memory(), HeapMemory()}) {
    auto* const x = static_cast<float*>(memory.allocate(kRows * kModel * sizeof(float)));
    auto* const y = static_cast<float*>(memory.allocate(rows.size() * kModel * sizeof(float)));
    for (int i = 0; i < kRows * kModel; ++i) x[i] = std::cos(i * 0.3f);
    EXPECT_TRUE(backend->Run({{expert.get(), rows, slots}}, x, kRows, y).ok());
    answers.emplace_back(y, y + rows.size() * kModel);
    memory.free(x);
    memory.free(y);
  }
  EXPECT_EQ(answers[1], answers[0]);
  EXPECT_EQ(answers[2], answers[0]);
}

TEST_F(ExpertBackendTest, WhereRowsAreDoesNotShow) {
  ThreadPool threads{1, absl::ZeroDuration()};
  ExpectRowsMayBeAnywhere(MakeCpuExpertBackend(&threads).get());
}

TEST_F(ExpertBackendTest, WhereRowsAreDoesNotShowOnADevice) {
  const auto backend = MakeCudaExpertBackend(Options("cuda"));
  if (!backend.ok()) GTEST_SKIP() << "skipped: " << backend.status().message();
  ExpectRowsMayBeAnywhere(backend->get());
}

TEST_F(ExpertBackendTest, QuantisesOnADevice) {
  const auto plain = MakeCudaExpertBackend(Options("cuda"));
  if (!plain.ok()) GTEST_SKIP() << "skipped: " << plain.status().message();
  for (WeightKind weights : {WeightKind::kInt8, WeightKind::kInt4}) {
    const auto backend = MakeCudaExpertBackend(Options("cuda", weights));
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_NE((*backend)->numerics_class(), (*plain)->numerics_class());
    const ExpertLayout::Sizes sizes{4096, 14336, DType::kBF16};
    const double share = static_cast<double>((*backend)->HeldBytes(sizes)) /
                         static_cast<double>((*plain)->HeldBytes(sizes));
    EXPECT_NEAR(share, weights == WeightKind::kInt8 ? 17.0 / 32 : 9.0 / 32, 0.001);
  }
}

}  // namespace
}  // namespace gatefold

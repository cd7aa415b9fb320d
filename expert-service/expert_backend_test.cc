#include "expert-service/expert_backend.h"

#include "gatefold/kernels/isa.h"
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
  static auto Choose(const std::string& name) { return ChooseExpertBackend(Options(name), nullptr); }
};

TEST_F(ExpertBackendTest, RefusesANameThatIsNone) {
  const auto backend = Choose("gpu");
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("\"gpu\", must be auto, cpu or cuda"));
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

TEST_F(ExpertBackendTest, QuantisesWhereItSaysSoOrNotAtAll) {
  EXPECT_EQ(*ParseWeightKind("int4"), WeightKind::kInt4);
  EXPECT_THAT(std::string(ParseWeightKind("int2").status().message()),
              HasSubstr("\"int2\", must be checkpoint, int8 or int4"));
  const auto on_cpu = ChooseExpertBackend(Options("cpu", WeightKind::kInt8), nullptr);
  EXPECT_EQ(on_cpu.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(on_cpu.status().message()), HasSubstr("--weights: the cpu backend"));
  const auto plain = MakeCudaExpertBackend(Options("cuda"));
  if (!plain.ok()) GTEST_SKIP() << "skipped: " << plain.status().message();
  for (WeightKind weights : {WeightKind::kInt8, WeightKind::kInt4}) {
    const auto backend = MakeCudaExpertBackend(Options("cuda", weights));
    ASSERT_TRUE(backend.ok()) << backend.status();
    EXPECT_NE((*backend)->numerics_class(), (*plain)->numerics_class());
    EXPECT_DOUBLE_EQ((*backend)->held_share(), weights == WeightKind::kInt8 ? 17.0 / 32 : 9.0 / 32);
  }
}

}  // namespace
}  // namespace gatefold

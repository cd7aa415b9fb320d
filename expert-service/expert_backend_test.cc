#include "expert-service/expert_backend.h"

#include "gatefold/kernels/isa.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

class ExpertBackendTest : public testing::Test {
 protected:
  std::unique_ptr<ModelWeights> weights_ = *ModelWeights::Open("tests/golden/mixtral/bf16");
};

TEST_F(ExpertBackendTest, RefusesANameThatIsNone) {
  const auto backend = ChooseExpertBackend("gpu", *weights_, nullptr);
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("\"gpu\", must be auto, cpu or cuda"));
}

TEST_F(ExpertBackendTest, AutoIsWhatCanBeHad) {
  const auto cuda = MakeCudaExpertBackend(*weights_);
  const auto chosen = ChooseExpertBackend("auto", *weights_, nullptr);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ((*chosen)->name(), cuda.ok() ? "cuda" : "cpu");
  if (!cuda.ok()) {
    EXPECT_EQ((*chosen)->numerics_class(), kernels::NumericsClass());
    // Who insists is told why not.
    const auto insisted = ChooseExpertBackend("cuda", *weights_, nullptr);
    EXPECT_EQ(insisted.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(insisted.status().message(), cuda.status().message());
    EXPECT_THAT(std::string(cuda.status().message()), HasSubstr("CUDA"));
  }
}

}  // namespace
}  // namespace gatefold

#include "expert-service/expert_backend.h"

#include "gatefold/kernels/isa.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

class ExpertBackendTest : public testing::Test {
 protected:
  static auto Choose(absl::string_view name) {
    return ChooseExpertBackend(name, DType::kBF16, 64, nullptr);
  }
};

TEST_F(ExpertBackendTest, RefusesANameThatIsNone) {
  const auto backend = Choose("gpu");
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("\"gpu\", must be auto, cpu or cuda"));
}

TEST_F(ExpertBackendTest, AutoIsWhatCanBeHad) {
  const auto cuda = MakeCudaExpertBackend(DType::kBF16, 64);
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

}  // namespace
}  // namespace gatefold

#include "cli/bench_load.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold::cli {
namespace {

using testing::HasSubstr;

constexpr LoadSize kUsual{.prompt_tokens = 512, .output_tokens = 128};

void ExpectSize(const absl::StatusOr<LoadSize>& size, int prompt_tokens, int output_tokens) {
  ASSERT_TRUE(size.ok()) << size.status();
  EXPECT_EQ(size->prompt_tokens, prompt_tokens);
  EXPECT_EQ(size->output_tokens, output_tokens);
}

TEST(FitLoad, IsTheUsualWhereThereIsRoom) {
  ExpectSize(FitLoad(kUsual, {}, {}, 4096), 512, 128);
  ExpectSize(FitLoad(kUsual, 1000, {}, 4096), 1000, 128);
  ExpectSize(FitLoad(kUsual, {}, 7, 4096), 512, 7);
}

TEST(FitLoad, IsLessForAShortModelUnlessMoreWasAskedFor) {
  ExpectSize(FitLoad(kUsual, {}, {}, 512), 384, 128);
  ExpectSize(FitLoad(kUsual, {}, {}, 64), 48, 16);
  ExpectSize(FitLoad(kUsual, {}, {}, 2), 1, 1);
  ExpectSize(FitLoad(kUsual, 500, {}, 512), 500, 12);
  ExpectSize(FitLoad(kUsual, {}, 300, 512), 212, 300);
  ExpectSize(FitLoad(kUsual, 300, 212, 512), 300, 212);
}

TEST(FitLoad, RefusesWhatCannotFit) {
  for (const auto& size : {FitLoad(kUsual, 512, {}, 512), FitLoad(kUsual, {}, 0, 512),
                           FitLoad(kUsual, 300, 213, 512)}) {
    EXPECT_EQ(size.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(size.status().message()), HasSubstr("512"));
  }
}

}  // namespace
}  // namespace gatefold::cli

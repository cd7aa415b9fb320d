#include "attention-service/attention_meter.h"

#include <gtest/gtest.h>

namespace gatefold {
namespace {

TEST(AttentionMeterTest, IsThereBeforeTheWeights) {
  AttentionServiceOptions options;
  options.worker.listen = "127.0.0.1:0";
  options.worker.metrics_port = 0;
  auto meter = AttentionMeter::Create(options);
  ASSERT_TRUE(meter.ok()) << meter.status();
  EXPECT_NE((*meter)->address(), "");
}

}  // namespace
}  // namespace gatefold

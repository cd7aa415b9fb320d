#include "attention-service/attention_meter.h"

#include <string>

#include "absl/strings/numbers.h"
#include "attention-service/attention_server.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

// So what is wrong with its port is found before a model that is not there.
TEST(AttentionMeterTest, IsThereBeforeTheWeights) {
  AttentionServiceOptions options;
  options.worker.listen = "127.0.0.1:0";
  options.worker.model_dir = "/nowhere";
  options.worker.metrics_port = 0;
  const auto meter = AttentionMeter::Create(options);
  ASSERT_TRUE(meter.ok()) << meter.status();
  const std::string address = (*meter)->address();
  EXPECT_TRUE(absl::IsNotFound(AttentionServer::Start(options).status()));
  ASSERT_TRUE(
      absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &options.worker.metrics_port));
  const absl::Status status = AttentionServer::Start(options).status();
  EXPECT_FALSE(status.ok());
  EXPECT_FALSE(absl::IsNotFound(status)) << status;
}

}  // namespace
}  // namespace gatefold

#include "cli/plan/cost_model.h"

#include <gtest/gtest.h>

namespace gatefold::cli {
namespace {

double Part(const StepCost& cost, StepPart part) { return cost.seconds[static_cast<int>(part)]; }

// Round numbers, so that the sums can be done by hand.
struct Case {
  Architecture model;
  WeightFormat format = *FindWeightFormat("bfloat16");
  Machine machine;
  Workload workload;
  LayerTraffic traffic;

  Case() {
    model.d_model = 1000;
    model.n_layers = 10;
    model.n_routed_layers = 8;
    model.n_experts = 16;
    model.top_k = 2;
    model.expert_params = 1'000'000;
    model.attention_params = 40'000'000;
    model.lm_head_params = 10'000'000;
    model.gate_params = 8 * 16 * 1000;
    model.kv_floats = 100;
    model.score_flops = 400;
    machine.memory_bandwidth = 1e9;
    machine.compute = 1e12;
    machine.hop = 100e-6;
    machine.stream = 50e-6;
    machine.copy_bandwidth = 2e9;
    machine.network_bandwidth = 1e9;
    machine.network_latency = 10e-6;
    workload.n_rows = 4;
    workload.n_context = 1000;
    traffic = {/*n_messages=*/3,   /*n_rows_sent=*/6, /*n_rows_answered=*/8,
               /*most_experts=*/2, /*most_rows=*/3,   /*imbalance=*/1.5};
  }
  StepCost Cost() const { return CostOfStep(model, format, machine, workload, traffic); }
};

TEST(CostModelTest, AddsUpByHand) {
  const StepCost cost = Case().Cost();
  // 50 M weights of two bytes; 4 sequences * 1000 positions * 10 layers * 100 numbers * 4 bytes.
  EXPECT_NEAR(Part(cost, StepPart::kAttention), (100e6 + 16e6) / 1e9, 1e-9);
  // Two experts of 2 MB in each of eight layers.
  EXPECT_NEAR(Part(cost, StepPart::kExperts), 8 * 4e6 / 1e9, 1e-9);
  // Gates, eight answers read and four rows written per layer.
  EXPECT_NEAR(Part(cost, StepPart::kRouter), 4 * (128e3 + 8 * 12 * 1000) / 1e9, 1e-9);
  // Eleven visits of attention, one peer each; eight of three shards.
  EXPECT_NEAR(Part(cost, StepPart::kMessages), 11 * 100e-6 + 8 * 150e-6, 1e-9);
  EXPECT_NEAR(Part(cost, StepPart::kNetwork), (11 + 8) * 20e-6, 1e-9);
  // Rows of 4000 bytes: there and back to attention ten times, 14 of them in each of eight layers.
  EXPECT_NEAR(Part(cost, StepPart::kPayload), 4000.0 * (10 * 2 * 4 + 8 * 14) / 1e9, 1e-9);
  EXPECT_EQ(cost.bottleneck(), StepPart::kAttention);
  EXPECT_EQ(cost.sent_bytes, 6000);
  EXPECT_EQ(cost.answered_bytes, 8000);
  EXPECT_EQ(cost.attention_bytes, 8000);
  EXPECT_EQ(cost.n_expert_messages, 6);
  EXPECT_EQ(cost.n_attention_messages, 2);
}

TEST(CostModelTest, ComputeBindsWhereRowsAreMany) {
  Case c;
  c.traffic.most_rows = 1e6;
  EXPECT_NEAR(Part(c.Cost(), StepPart::kExperts), 8 * 1e6 * 2e6 / 1e12, 1e-6);
}

TEST(CostModelTest, AttentionServicesShareTheSequences) {
  Case c;
  c.workload.n_attention = 2;
  EXPECT_EQ(KvBytes(c.model, c.workload), 8e6);
  EXPECT_NEAR(Part(c.Cost(), StepPart::kAttention), (100e6 + 8e6) / 1e9, 1e-9);
  c.workload.n_attention = 8;  // more than there are sequences
  EXPECT_EQ(c.Cost().n_attention_messages, 8);
}

TEST(CostModelTest, OverlappedLanesWaitForTheBusiestResource) {
  StepCost cost;
  cost.seconds = {1, 2, 0.5, 1, 1, 100};  // the network occupies nobody
  EXPECT_EQ(cost.busiest(), 2.5);
  EXPECT_EQ(cost.total(), 105.5);
}

}  // namespace
}  // namespace gatefold::cli

#include "cli/plan/cost_model.h"

#include <algorithm>
#include <numeric>

namespace gatefold::cli {
namespace {

// Reading and computing overlap.
double Roofline(const Machine& machine, double bytes, double operations) {
  return std::max(bytes / machine.memory_bandwidth, operations / machine.compute);
}

// One message to each of `n_peers` and back: the peers are written to and read from in turn, and a
// single one is waited for at least as long as a hop takes.
double Messages(const Machine& machine, double n_peers) {
  return n_peers == 0 ? 0 : std::max(machine.hop, n_peers * machine.stream);
}

double RowsOfAttention(const Workload& workload) {
  return (workload.n_rows + workload.n_attention - 1) / workload.n_attention;
}

}  // namespace

const char* StepPartName(StepPart part) {
  switch (part) {
    case StepPart::kAttention:
      return "attention";
    case StepPart::kExperts:
      return "experts";
    case StepPart::kRouter:
      return "router";
    case StepPart::kMessages:
      return "messages";
    case StepPart::kPayload:
      return "payload";
    case StepPart::kNetwork:
      return "network";
  }
  return "unknown";
}

double StepCost::total() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }

StepPart StepCost::bottleneck() const {
  return static_cast<StepPart>(std::max_element(seconds.begin(), seconds.end()) - seconds.begin());
}

double StepCost::busiest() const {
  const auto of = [this](StepPart part) { return seconds[static_cast<int>(part)]; };
  return std::max({of(StepPart::kAttention), of(StepPart::kExperts),
                   of(StepPart::kRouter) + of(StepPart::kMessages) + of(StepPart::kPayload)});
}

double KvBytes(const Architecture& model, const Workload& workload) {
  return RowsOfAttention(workload) * workload.n_context * model.n_layers *
         static_cast<double>(model.kv_floats) * workload.kv_bytes;
}

StepCost CostOfStep(const Architecture& model, const WeightFormat& format, const Machine& machine,
                    const Workload& workload, const LayerTraffic& traffic) {
  StepCost cost;
  const auto part = [&cost](StepPart p) -> double& { return cost.seconds[static_cast<int>(p)]; };
  const double rows = workload.n_rows;
  const double row_bytes = model.d_model * workload.wire_bytes;

  const double attention_rows = RowsOfAttention(workload);
  const double attention_params = static_cast<double>(model.attention_params + model.shared_params +
                                                      model.dense_params + model.lm_head_params);
  part(StepPart::kAttention) =
      Roofline(machine, model.AttentionBytesRead(format) + KvBytes(model, workload),
               attention_rows * (2 * attention_params + static_cast<double>(model.score_flops) *
                                                            workload.n_context * model.n_layers));

  part(StepPart::kExperts) =
      model.n_routed_layers *
      Roofline(machine, traffic.most_experts * model.ExpertBytes(format),
               traffic.most_rows * 2 * static_cast<double>(model.expert_params));

  // The gate's weights once; each answer read and each row's sum written, in float32.
  part(StepPart::kRouter) =
      Roofline(machine,
               4 * (static_cast<double>(model.gate_params) +
                    model.n_routed_layers * (traffic.n_rows_answered + rows) * model.d_model),
               2 * rows * static_cast<double>(model.gate_params));

  const double n_attention = std::min<double>(workload.n_attention, rows);
  part(StepPart::kMessages) = (model.n_layers + 1) * Messages(machine, n_attention) +
                              model.n_routed_layers * Messages(machine, traffic.n_messages);
  part(StepPart::kNetwork) =
      (model.n_layers + 1 + model.n_routed_layers) * 2 * machine.network_latency;

  const double attention_bytes = model.n_layers * 2 * rows * row_bytes;
  const double expert_bytes =
      model.n_routed_layers * (traffic.n_rows_sent + traffic.n_rows_answered) * row_bytes;
  part(StepPart::kPayload) = (attention_bytes + expert_bytes) /
                             std::min(machine.copy_bandwidth, machine.network_bandwidth);

  cost.attention_bytes = 2 * row_bytes;
  cost.sent_bytes = traffic.n_rows_sent * row_bytes / rows;
  cost.answered_bytes = traffic.n_rows_answered * row_bytes / rows;
  cost.n_attention_messages = 2 * n_attention;
  cost.n_expert_messages = 2 * traffic.n_messages;
  return cost;
}

}  // namespace gatefold::cli

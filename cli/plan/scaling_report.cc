#include "cli/plan/scaling_report.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace gatefold::cli {
namespace {

constexpr StepPart kParts[] = {StepPart::kAttention, StepPart::kExperts, StepPart::kRouter,
                               StepPart::kMessages,  StepPart::kPayload, StepPart::kNetwork};

std::string Parameters(int64_t n) {
  return n < 1'000'000'000 ? absl::StrFormat("%.1f M", static_cast<double>(n) / 1e6)
                           : absl::StrFormat("%.1f B", static_cast<double>(n) / 1e9);
}
std::string GiB(double bytes) { return absl::StrFormat("%.1f GiB", bytes / (1 << 30)); }
std::string Count(int n, absl::string_view what) {
  return absl::StrCat(n, " ", what, n == 1 ? "" : "s");
}
std::string Ms(double seconds) { return absl::StrFormat("%.1f", 1e3 * seconds); }

void PrintFacts(const Architecture& model, const WeightFormat& format,
                const ScalingOptions& options, const Scaling& scaling, std::ostream& out) {
  const double expert = model.ExpertBytes(format);
  Table table(
      {"model", absl::StrCat(model.family, ", ", Parameters(model.n_params()), " parameters, ",
                             Parameters(model.n_active_params()), " read per token")});
  table.AddRow(
      {"experts",
       absl::StrCat(model.top_k, " of ", model.n_experts, " in ", model.n_routed_layers, " of ",
                    model.n_layers, " layers; one takes ", FormatBytes(expert), ", all take ",
                    FormatBytes(expert * model.n_experts * model.n_routed_layers), " as ",
                    format.name)});
  table.AddRow({"pods", absl::StrCat(GiB(options.memory_bytes), " each, ",
                                     GiB(options.reserved_bytes), " of it kept free")});
  table.AddRow(
      {"needed", absl::StrCat(Count(scaling.n_shards_needed, "expert-service"), ", ",
                              Count(scaling.n_attention, "attention-service"), ", 1 router")});
  table.AddRow(
      {"attention-service", absl::StrCat(FormatBytes(scaling.attention_bytes), " of weights, ",
                                         FormatBytes(scaling.kv_bytes), " of KV cache each")});
  table.AddRow(
      {"step", absl::StrCat("one token of each of ", Count(options.workload.n_rows, "sequence"),
                            " of ", options.workload.n_context, " tokens")});
  table.Print(out);
}

}  // namespace

void PrintScaling(const Architecture& model, const WeightFormat& format,
                  const ScalingOptions& options, const Scaling& scaling, std::ostream& out) {
  PrintFacts(model, format, options, scaling, out);
  out << "\nOn a shard at most, and per layer (messages both ways; bytes of one token):\n";
  Table traffic({">shards", ">experts", ">held", ">copies", ">messages", ">to shards",
                 ">from shards", ">attention", ">imbalance"});
  for (const ScalingPoint& point : scaling.points) {
    if (!point.fits) {
      traffic.AddRow({absl::StrCat(point.n_shards), "too few", "", "", "", "", "", "", ""});
      continue;
    }
    traffic.AddRow(
        {absl::StrCat(point.n_shards), absl::StrCat(point.most_experts),
         FormatBytes(point.most_bytes), absl::StrFormat("%.2f", point.n_replicas),
         absl::StrFormat("%.1f", point.cost.n_expert_messages + point.cost.n_attention_messages),
         FormatBytes(point.cost.sent_bytes), FormatBytes(point.cost.answered_bytes),
         FormatBytes(point.cost.attention_bytes),
         absl::StrFormat("%.2f", point.traffic.imbalance)});
  }
  traffic.Print(out);
  out << "\nA step over all layers, in milliseconds:\n";
  std::vector<std::string> headers = {">shards"};
  for (const StepPart part : kParts) headers.push_back(absl::StrCat(">", StepPartName(part)));
  for (const char* name : {">step", ">tokens/s", ">overlapped", "bottleneck"}) {
    headers.push_back(name);
  }
  Table steps(headers);
  for (const ScalingPoint& point : scaling.points) {
    if (!point.fits) continue;
    std::vector<std::string> row = {absl::StrCat(point.n_shards)};
    for (const StepPart part : kParts) {
      row.push_back(Ms(point.cost.seconds[static_cast<int>(part)]));
    }
    const double rows = options.workload.n_rows;
    row.push_back(Ms(point.cost.total()));
    row.push_back(absl::StrFormat("%.0f", rows / point.cost.total()));
    row.push_back(absl::StrFormat("%.0f", rows / point.cost.busiest()));
    row.push_back(StepPartName(point.cost.bottleneck()));
    steps.AddRow(std::move(row));
  }
  steps.Print(out);
}

Json ScalingJson(const Architecture& model, const WeightFormat& format,
                 const ScalingOptions& options, const Scaling& scaling) {
  const Machine& machine = options.machine;
  Json points = Json::array();
  for (const ScalingPoint& point : scaling.points) {
    Json& json = points.emplace_back(Json{{"n_shards", point.n_shards}, {"fits", point.fits}});
    if (!point.fits) continue;
    Json seconds;
    for (const StepPart part : kParts) {
      seconds[StepPartName(part)] = point.cost.seconds[static_cast<int>(part)];
    }
    json.update(
        Json{{"max_experts", point.most_experts},
             {"max_bytes", point.most_bytes},
             {"replicas", point.n_replicas},
             {"expert_messages", point.cost.n_expert_messages},
             {"attention_messages", point.cost.n_attention_messages},
             {"sent_bytes_per_token", point.cost.sent_bytes},
             {"answered_bytes_per_token", point.cost.answered_bytes},
             {"attention_bytes_per_token", point.cost.attention_bytes},
             {"imbalance", point.traffic.imbalance},
             {"step_seconds", point.cost.total()},
             {"parts", std::move(seconds)},
             {"tokens_per_second", options.workload.n_rows / point.cost.total()},
             {"overlapped_tokens_per_second", options.workload.n_rows / point.cost.busiest()},
             {"bottleneck", StepPartName(point.cost.bottleneck())}});
  }
  return {{"model",
           {{"family", model.family},
            {"parameters", model.n_params()},
            {"active_parameters", model.n_active_params()},
            {"n_layers", model.n_layers},
            {"n_routed_layers", model.n_routed_layers},
            {"n_experts", model.n_experts},
            {"top_k", model.top_k},
            {"weights", format.name},
            {"expert_bytes", model.ExpertBytes(format)}}},
          {"needed",
           {{"n_shards", scaling.n_shards_needed},
            {"n_attention", scaling.n_attention},
            {"attention_bytes", scaling.attention_bytes},
            {"kv_bytes", scaling.kv_bytes}}},
          {"assumed",
           {{"memory_bytes", options.memory_bytes},
            {"reserved_bytes", options.reserved_bytes},
            {"min_replicas", options.min_replicas},
            {"rows", options.workload.n_rows},
            {"context", options.workload.n_context},
            {"skew", options.traffic.skew},
            {"wire_bytes", options.workload.wire_bytes},
            {"kv_bytes", options.workload.kv_bytes},
            {"memory_bandwidth", machine.memory_bandwidth},
            {"compute", machine.compute},
            {"hop_seconds", machine.hop},
            {"stream_seconds", machine.stream},
            {"copy_bandwidth", machine.copy_bandwidth},
            {"network_bandwidth", machine.network_bandwidth},
            {"network_latency_seconds", machine.network_latency}}},
          {"scaling", std::move(points)}};
}

}  // namespace gatefold::cli

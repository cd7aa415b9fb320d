#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/error_report.h"
#include "cli/output.h"
#include "cli/plan/quantity.h"
#include "cli/plan/scaling.h"
#include "cli/plan/scaling_report.h"
#include "cli/verbs.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

constexpr size_t kMaxConfigBytes = 1 << 20;

absl::StatusOr<std::string> ReadConfig(std::string path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) path += "/config.json";
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxConfigBytes + 1, '\0');
  if (!file || !std::filesystem::is_regular_file(path, ignored)) {
    return UsageError(absl::StrCat("--config: ", path, " cannot be read"));
  }
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxConfigBytes) {
    return UsageError(absl::StrCat("--config: ", path, " has more than ", kMaxConfigBytes,
                                   " bytes; is it a config.json?"));
  }
  return text;
}

class PlanVerb final : public Verb {
 public:
  absl::string_view name() const override { return "plan"; }
  absl::string_view summary() const override {
    return "Tells how many pods a model needs and what a step would cost, from its config.json.";
  }
  absl::string_view details() const override {
    return "Experts are placed by the planner that routers run. Times are computed from costs\n"
           "that were measured on one small CPU machine (docs/numbers.md) unless you give others;\n"
           "docs/scaling.md has the formulae and what they leave out.\n";
  }

  void AddFlags(FlagSet* flags) override {
    flags->Add("config", "PATH", "a config.json, or the folder it is in", &config_);
    flags->Add("weights", "FORMAT",
               "float32, bfloat16, float16, fp8, int8, int4 or mxfp4 (default: the config's)",
               &weights_);
    flags->Add("n-slices", "N", "parts of a dense model's MLP (default 8)", &n_slices_);
    output_.AddTo(flags);
    flags->Section("Pods:");
    flags->Add("memory", "SIZE", "of a pod (default 80GiB)", &memory_);
    flags->Add("reserve", "SIZE", "of it, for all but weights and KV cache (default 512MiB)",
               &reserve_);
    flags->Add("shards", "N,...", "expert-services (default: what is needed, doubled five times)",
               &shards_);
    flags->Add("attention", "N", "attention-services (default: what the KV cache needs)",
               &attention_);
    flags->Add("min-replicas", "N", "shards that hold each expert (default 1)",
               &options_.min_replicas);
    flags->Section("Load:");
    flags->Add("rows", "N", "sequences that decode in one step (default 64)",
               &options_.workload.n_rows);
    flags->Add("context", "N", "tokens of each sequence (default 4096)",
               &options_.workload.n_context);
    flags->Add("skew", "S",
               "the r-th most popular expert is chosen in proportion to r^-S (default 0, even)",
               &skew_);
    flags->Add("wire-dtype", "TYPE", "of hidden states: float32 (default) or bfloat16", &wire_);
    flags->Add("kv-dtype", "TYPE", "of keys and values: float32 (default) or bfloat16 (on GPUs)",
               &kv_);
    flags->Section("Machines and network (defaults measured on a CPU, but for the network's):");
    flags->Add("memory-bandwidth", "RATE", "a pod reads weights with (default 35GB/s)",
               &memory_bandwidth_);
    flags->Add("compute", "RATE", "of a pod's matrix products (default 200GFLOP/s)", &compute_);
    flags->Add("hop", "TIME", "small message there and back (default 81.3us)", &hop_);
    flags->Add("stream", "TIME", "of the router, per peer of a fan-out (default 54.8us)", &stream_);
    flags->Add("copy-bandwidth", "RATE", "through the router's stack (default 4.5GB/s)", &copy_);
    flags->Add("network-bandwidth", "RATE", "of the router's link (default 25Gbit/s)",
               &network_bandwidth_);
    flags->Add("network-latency", "TIME", "one way, beside the hop (default 25us)",
               &network_latency_);
  }

  absl::Status Run(const FlagSet&, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    if (!arguments.empty()) return UsageError("plan takes flags only");
    if (config_.empty()) return UsageError("say which model: --config PATH");
    GF_RETURN_IF_ERROR(ReadFlags());
    GF_ASSIGN_OR_RETURN(const std::string text, ReadConfig(config_));
    const absl::StatusOr<Architecture> model = ReadArchitecture(text, n_slices_);
    if (!model.ok()) return Annotate(model.status(), config_);
    const bool chosen = !weights_.empty() && weights_ != "checkpoint";
    const auto format = FindWeightFormat(chosen ? weights_ : model->stored_as);
    if (!format.ok()) {
      return chosen ? UsageError(absl::StrCat("--weights: ", format.status().message()))
                    : WithNextStep(Annotate(format.status(), config_), "Choose with --weights.");
    }
    GF_ASSIGN_OR_RETURN(const Scaling scaling, PlanScaling(*model, *format, options_, shards_));
    if (output_.json()) {
      PrintJson(ScalingJson(*model, *format, options_, scaling), console->out);
    } else {
      PrintScaling(*model, *format, options_, scaling, console->out);
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ReadFlags() {
    const struct {
      const char* flag;
      const std::string& text;
      QuantityKind kind;
      double* value;
    } quantities[] = {
        {"--memory", memory_, QuantityKind::kBytes, &options_.memory_bytes},
        {"--reserve", reserve_, QuantityKind::kBytes, &options_.reserved_bytes},
        {"--memory-bandwidth", memory_bandwidth_, QuantityKind::kBytesPerSecond,
         &options_.machine.memory_bandwidth},
        {"--compute", compute_, QuantityKind::kOperationsPerSecond, &options_.machine.compute},
        {"--hop", hop_, QuantityKind::kSeconds, &options_.machine.hop},
        {"--stream", stream_, QuantityKind::kSeconds, &options_.machine.stream},
        {"--copy-bandwidth", copy_, QuantityKind::kBytesPerSecond,
         &options_.machine.copy_bandwidth},
        {"--network-bandwidth", network_bandwidth_, QuantityKind::kBytesPerSecond,
         &options_.machine.network_bandwidth},
        {"--network-latency", network_latency_, QuantityKind::kSeconds,
         &options_.machine.network_latency},
    };
    for (const auto& quantity : quantities) {
      if (quantity.text.empty()) continue;
      const absl::Status parsed = ParseQuantity(quantity.text, quantity.kind, quantity.value);
      if (!parsed.ok()) return UsageError(absl::StrCat(quantity.flag, " ", parsed.message()));
    }
    for (const auto& [flag, text, bytes] :
         {std::tuple("--wire-dtype", &wire_, &options_.workload.wire_bytes),
          std::tuple("--kv-dtype", &kv_, &options_.workload.kv_bytes)}) {
      if (*text != "float32" && *text != "bfloat16") {
        return UsageError(absl::StrCat(flag, " is \"", *text, "\", must be float32 or bfloat16"));
      }
      *bytes = *text == "float32" ? 4 : 2;
    }
    options_.workload.n_attention = attention_;
    options_.traffic.skew = skew_;
    return CheckNumbers();
  }

  absl::Status CheckNumbers() const {
    std::vector<Bound> bounds = {{"--n-slices", n_slices_, 1, 4096},
                                 {"--attention", attention_, 0, kMostShards},
                                 {"--min-replicas", options_.min_replicas, 1, kMostShards},
                                 {"--rows", options_.workload.n_rows, 1, 4096},
                                 {"--context", options_.workload.n_context, 1, 1 << 24}};
    for (const int n : shards_) bounds.push_back({"--shards", n, 1, kMostShards});
    for (const Bound& bound : bounds) {
      if (bound.value >= bound.least && bound.value <= bound.most) continue;
      return UsageError(absl::StrCat(bound.flag, " is ", bound.value, ", must be within ",
                                     bound.least, " and ", bound.most));
    }
    if (!(skew_ >= 0 && skew_ <= 2)) {
      return UsageError(absl::StrCat("--skew is ", skew_, ", must be within 0 and 2"));
    }
    if (shards_.size() > 32) {
      return UsageError(absl::StrCat("--shards lists ", shards_.size(), " numbers; at most 32"));
    }
    return absl::OkStatus();
  }

  struct Bound {
    const char* flag;
    int value, least, most;
  };

  std::string config_, weights_;
  std::string memory_ = "80GiB", reserve_ = "512MiB", wire_ = "float32", kv_ = "float32";
  std::string memory_bandwidth_, compute_, hop_, stream_, copy_;  // empty: as in Machine
  std::string network_bandwidth_, network_latency_;
  std::vector<int32_t> shards_;
  int n_slices_ = 8;
  int attention_ = 0;
  float skew_ = 0;
  ScalingOptions options_;
  OutputFlag output_;
};

}  // namespace

std::unique_ptr<Verb> MakePlanVerb() { return std::make_unique<PlanVerb>(); }

}  // namespace gatefold::cli

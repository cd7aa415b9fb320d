#include "gatefold/worker/worker.h"

#include <sched.h>

#include <cstdio>
#include <limits>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/kernels/isa.h"

namespace gatefold {

const char* const kVersion = GATEFOLD_VERSION;

absl::Status WorkerOptions::Validate() const {
  if (model_dir.empty()) return absl::InvalidArgumentError("--model is missing: a model's folder");
  if (listen.empty()) {
    return absl::InvalidArgumentError("--listen is missing: host:port or unix:/path");
  }
  if (n_threads < 0 || n_threads > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("--threads is ", n_threads, ", must be within 0 and 1024"));
  }
  if (spin_us < 0 || spin_us > 1'000'000) {
    return absl::InvalidArgumentError(
        absl::StrCat("--spin-us is ", spin_us, ", must be within 0 and 1000000"));
  }
  if (metrics_port < -1 || metrics_port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics-port is ", metrics_port, ", must be within -1 and 65535"));
  }
  // Else nobody could read the description that has it.
  for (const auto& [flag, text] : {std::pair("--name", name), {"--node", node}, {"--zone", zone}}) {
    if (FindInvalidUtf8(text) != kValidUtf8) {
      return absl::InvalidArgumentError(absl::StrCat(flag, " is not valid UTF-8"));
    }
  }
  return kernels::SelectIsa(isa);
}

absl::Status CheckDrainLimit(absl::Duration limit) {
  if (limit >= absl::ZeroDuration()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--drain-limit is ", absl::FormatDuration(limit), ", must not be negative"));
}

int NumThreads(int n_threads) {
  if (n_threads > 0) return n_threads;
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

absl::StatusOr<uint64_t> ParseBytes(absl::string_view flag, absl::string_view text) {
  absl::string_view number = text;
  int shift = 0;
  for (const auto& [suffix, bits] :
       {std::pair("KiB", 10), std::pair("MiB", 20), std::pair("GiB", 30), std::pair("TiB", 40)}) {
    if (absl::ConsumeSuffix(&number, suffix)) {
      shift = bits;
      break;
    }
  }
  uint64_t value = 0;
  if (!absl::SimpleAtoi(number, &value) ||
      value > (std::numeric_limits<uint64_t>::max() >> shift)) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag, ": \"", text, "\" is no size; write bytes, or a number with KiB, MiB or GiB"));
  }
  return value << shift;
}

absl::StatusOr<bool> ParseOnOff(absl::string_view flag, absl::string_view text) {
  if (text == "on") return true;
  if (text == "off") return false;
  return absl::InvalidArgumentError(absl::StrCat(flag, " is \"", text, "\", must be on or off"));
}

void PrintReady(const std::string& address, const std::string& metrics_address) {
  std::printf("listening on %s%s\nready\n", address.c_str(),
              metrics_address.empty()
                  ? ""
                  : absl::StrCat(" metrics http://", metrics_address, "/metrics").c_str());
  std::fflush(stdout);
}

uint64_t RandomId() {
  std::random_device random;
  const uint64_t id = (static_cast<uint64_t>(random()) << 32) | random();
  return id != 0 ? id : 1;
}

internal::v1::WorkerDescription DescribeWorker(const WorkerOptions& options,
                                               const ModelWeights& weights) {
  return DescribeWorker(options, weights.config(), weights.Fingerprint());
}

internal::v1::WorkerDescription DescribeWorker(const WorkerOptions& options,
                                               const ModelConfig& config,
                                               const std::string& model_fingerprint) {
  internal::v1::WorkerDescription worker;
  worker.set_name(options.name);
  worker.set_incarnation(RandomId());
  worker.set_wire_version(kWireVersion);
  worker.set_model_fingerprint(model_fingerprint);
  worker.set_config_fingerprint(ConfigFingerprint(config));
  worker.set_numerics_class(kernels::NumericsClass());
  worker.set_backend("cpu");
  worker.set_isa(kernels::Kernels().isa);
  worker.set_version(kVersion);
  worker.set_n_threads(NumThreads(options.n_threads));
  worker.set_node(options.node);
  worker.set_zone(options.zone);
  return worker;
}

}  // namespace gatefold

#include "cli/local_flags.h"

#include "absl/strings/str_cat.h"
#include "cli/error_report.h"
#include "expert-service/expert_backend.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/worker/worker.h"

namespace gatefold::cli {

void LocalFlags::AddTo(FlagSet* flags) {
  flags->Add("threads", "N", "threads that compute (default 0: the cores there are)", &threads);
  flags->Add("kv-memory", "SIZE", "memory of the KV cache (default 1GiB)", &kv_memory);
  flags->Add("prefix-cache", "on|off",
             "keep keys and values for prompts that begin like earlier ones (default on)",
             &prefix_cache);
  flags->Add("lanes", "N", "micro-batches that overlap attention and experts (default 1)", &lanes);
  flags->Add("max-step-tokens", "N",
             "rows of one step, decode and prefill together (default 0: 512, and 2048 where "
             "attention and experts are on one CUDA device)",
             &max_step_tokens);
  flags->Add("n-slices", "N", "parts of a dense layer's MLP (default 8)", &n_slices);
  flags->Add("weights", "KIND",
             "how experts are kept: checkpoint (default), or quantised when loaded: int8 or int4",
             &weights);
  flags->Add("wire-dtype", "TYPE", "rounding of hidden states: float32 (default) or bfloat16",
             &wire_dtype);
  flags->Add("isa", "NAME", "auto (default), avx512, avx2 or scalar; the numbers are the same",
             &isa);
  flags->Add("backend", "NAME",
             "where experts and attention are computed: cpu, cuda, or auto (default): a CUDA "
             "device where there is one that the model fits",
             &backend);
}

std::string LocalFlags::AnyGiven(const FlagSet& flags) {
  for (const char* name : {"threads", "kv-memory", "prefix-cache", "lanes", "max-step-tokens",
                           "n-slices", "weights", "wire-dtype", "isa", "backend"}) {
    if (flags.OnCommandLine(name)) return absl::StrCat("--", name);
  }
  return "";
}

absl::Status LocalFlags::Check() const {
  const struct {
    const char* flag;
    int value, least, most;
  } bounds[] = {{"--threads", threads, 0, 1024},
                {"--lanes", lanes, 1, 64},
                {"--n-slices", n_slices, 1, 4096},
                {"--max-step-tokens", max_step_tokens, 0, 1 << 20}};
  for (const auto& [flag, value, least, most] : bounds) {
    if (value < least || value > most) {
      return UsageError(
          absl::StrCat(flag, " is ", value, ", must be within ", least, " and ", most));
    }
  }
  if (prefix_cache != "on" && prefix_cache != "off") {
    return UsageError(absl::StrCat("--prefix-cache is \"", prefix_cache, "\", must be on or off"));
  }
  if (wire_dtype != "float32" && wire_dtype != "bfloat16") {
    return UsageError(
        absl::StrCat("--wire-dtype is \"", wire_dtype, "\", must be float32 or bfloat16"));
  }
  if (isa != "auto" && isa != "scalar" && isa != "avx2" && isa != "avx512") {
    return UsageError(absl::StrCat("--isa is \"", isa, "\", must be auto, scalar, avx2 or avx512"));
  }
  if (backend != "auto" && backend != "cpu" && backend != "cuda") {
    return UsageError(absl::StrCat("--backend is \"", backend, "\", must be auto, cpu or cuda"));
  }
  return absl::OkStatus();
}

absl::StatusOr<LocalRouterOptions> LocalFlags::ToOptions(const std::string& model_dir) const {
  GF_RETURN_IF_ERROR(Check());
  const absl::StatusOr<uint64_t> kv_memory_bytes = ParseBytes("--kv-memory", kv_memory);
  if (!kv_memory_bytes.ok()) return UsageError(kv_memory_bytes.status().message());
  const absl::StatusOr<WeightKind> kind = ParseWeightKind(weights);
  if (!kind.ok()) return UsageError(kind.status().message());
  LocalRouterOptions options;
  options.weights = *kind;
  options.model_dir = model_dir;
  options.kv_memory_bytes = *kv_memory_bytes;
  options.prefix_cache = prefix_cache == "on";
  options.isa = isa;
  options.backend = backend;
  options.wire_dtype = wire_dtype;
  options.n_threads = threads;
  options.n_lanes = lanes;
  options.n_slices = n_slices;
  options.max_step_tokens = max_step_tokens;
  return options;
}

}  // namespace gatefold::cli

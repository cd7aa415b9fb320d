// kernels_bench [--threads=2] [--isa=auto] [--benchmark_filter=...]: the kernels at the sizes of
// the model of all speed figures (d_model 1024, intermediate 2816, 8 experts, top 2, 16 heads and 4
// KV heads of 64), each beside the machine's own limits. See roofline.h for what the counters mean.

#include <cstdio>
#include <string>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "bench/kernels/roofline.h"
#include "gatefold/kernels/isa.h"

ABSL_FLAG(int, threads, 0, "threads to compute with; 0: one per core");
ABSL_FLAG(std::string, isa, "auto", "auto, scalar, avx2 or avx512");

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  absl::ParseCommandLine(argc, argv);
  const absl::Status selected = gatefold::kernels::SelectIsa(absl::GetFlag(FLAGS_isa));
  if (!selected.ok()) {
    std::fprintf(stderr, "%s\n", selected.ToString().c_str());
    return 1;
  }
  int n_threads = absl::GetFlag(FLAGS_threads);
  if (n_threads <= 0) n_threads = static_cast<int>(std::thread::hardware_concurrency());
  gatefold::ThreadPool threads(n_threads, absl::Microseconds(200));
  gatefold::bench::MachineLimits limits(&threads);
  const gatefold::bench::Bench bench{&threads, &limits};
  gatefold::bench::RegisterPool(bench);
  gatefold::bench::RegisterMatMul(bench);
  gatefold::bench::RegisterExpertMlp(bench);
  gatefold::bench::RegisterAttention(bench);
  benchmark::AddCustomContext("threads", std::to_string(n_threads));
  benchmark::AddCustomContext("isa", gatefold::kernels::Kernels().isa);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

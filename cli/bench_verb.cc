#include <cstdint>
#include <optional>
#include <random>

#include "absl/strings/str_cat.h"
#include "cli/bench_load.h"
#include "cli/bench_report.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

class BenchVerb final : public Verb {
 public:
  absl::string_view name() const override { return "bench"; }
  absl::string_view summary() const override { return "Measures prefill and decode."; }
  absl::string_view details() const override {
    return "Sends requests of random tokens, greedy and past end-of-sequence, after one that is "
           "not\n"
           "counted. They go in waves of --concurrency requests, sent together; the next wave "
           "starts\n"
           "when all have ended. What is measured is what the client sees:\n"
           "  prefill  all prompt tokens over the time from a wave's first sending until each of "
           "its\n"
           "           requests has its first token\n"
           "  decode   the tokens after that moment over the time from it to the wave's last "
           "token\n"
           "           (alone: all tokens of a request but the first)\n"
           "  TTFT     from sending a request to its first token\n"
           "  ITL      between tokens, counted per token: those that arrive together share the "
           "time\n"
           "With -o json: prefill_tokens_per_second, decode_tokens_per_second, ttft_ms and itl_ms\n"
           "(p50, p99), requests_failed.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddTo(flags);
    flags->Section("The load:");
    flags->Add("prompt-tokens", "N", "tokens of each prompt (default 512, or what fits)",
               &prompt_tokens_);
    flags->Add("output-tokens", "N", "tokens generated for each (default 128, or what fits)",
               &output_tokens_);
    flags->Add("concurrency", "N", "requests at the same time (default 1)", &load_.concurrency);
    flags->Add("requests", "N", "requests in all (default 3, or what fills the waves)", &requests_);
    flags->Add("seed", "N", "of the random prompts (default: another one each time)", &seed_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    if (!arguments.empty()) return UsageError("bench takes no arguments");
    GF_RETURN_IF_ERROR(CheckLoad());
    // The server may have cached the prompts of an earlier run.
    load_.seed = seed_ ? *seed_ : std::random_device()();
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    GF_ASSIGN_OR_RETURN(const inference::v1::Model model, connection->GetModel());
    GF_ASSIGN_OR_RETURN(load_.size,
                        FitLoad({.prompt_tokens = 512, .output_tokens = 128}, prompt_tokens_,
                                output_tokens_, model.max_sequence_tokens()));
    const std::vector<BenchSample> samples =
        RunBenchLoad(connection.get(), model.vocab_size(), load_);
    for (const BenchSample& sample : samples) {
      if (!sample.status.ok() && connection->interrupts()->raised()) return sample.status;
    }
    const BenchReport report = MakeBenchReport(samples);
    if (report.n_failed < report.n_requests) {
      if (output_.json()) {
        PrintJson(BenchJson(report), console->out);
      } else {
        PrintBenchReport(report, console->out);
      }
    }
    for (const BenchSample& sample : samples) {
      if (!sample.status.ok()) {
        return Annotate(sample.status, absl::StrCat(report.n_failed, " of ", report.n_requests,
                                                    " requests failed, the first with"));
      }
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CheckLoad() {
    const struct {
      const char* flag;
      int value, most;
    } bounds[] = {{"--concurrency", load_.concurrency, 1024},
                  {"--requests", requests_.value_or(1), 1 << 20}};
    for (const auto& [flag, value, most] : bounds) {
      if (value < 1 || value > most) {
        return UsageError(absl::StrCat(flag, " is ", value, ", must be within 1 and ", most));
      }
    }
    // As few waves as have three requests, and none of them with fewer than were asked for.
    const int n_waves = (2 + load_.concurrency) / load_.concurrency;
    load_.requests = requests_.value_or(n_waves * load_.concurrency);
    return absl::OkStatus();
  }

  ConnectionFlags connection_;
  OutputFlag output_;
  BenchLoad load_;
  std::optional<int> prompt_tokens_, output_tokens_, requests_;
  std::optional<uint64_t> seed_;
};

}  // namespace

std::unique_ptr<Verb> MakeBenchVerb() { return std::make_unique<BenchVerb>(); }

}  // namespace gatefold::cli

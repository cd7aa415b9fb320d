#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "cli/answer.h"
#include "cli/bench_report.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Every request has a prompt of its own, so that no cache helps.
inference::v1::GenerateTextRequest MakeRequest(uint32_t vocab_size, int n_prompt_tokens,
                                               int n_output_tokens, uint64_t seed) {
  inference::v1::GenerateTextRequest request;
  std::mt19937_64 random(seed);
  auto* ids = request.mutable_prompt()->mutable_token_ids()->mutable_ids();
  for (int i = 0; i < n_prompt_tokens; ++i) ids->Add(static_cast<int32_t>(random() % vocab_size));
  inference::v1::GenerationConfig* config = request.mutable_config();
  config->set_max_output_tokens(static_cast<uint32_t>(n_output_tokens));
  config->set_temperature(0);
  config->set_ignore_eos(true);
  return request;
}

BenchSample Measure(Connection* connection, const inference::v1::GenerateTextRequest& request,
                    int wave) {
  BenchSample sample;
  sample.wave = wave;
  sample.n_prompt_tokens = request.prompt().token_ids().ids_size();
  sample.sent = Now();
  sample.status = GenerateAnswer(connection, request, [&sample](const auto& delta) {
                    sample.NoteTokens(static_cast<int>(delta.n_tokens()), Now());
                    return absl::OkStatus();
                  }).status();
  return sample;
}

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
    flags->Add("prompt-tokens", "N", "tokens of each prompt (default 512)", &prompt_tokens_);
    flags->Add("output-tokens", "N", "tokens generated for each (default 128)", &output_tokens_);
    flags->Add("concurrency", "N", "requests at the same time (default 1)", &concurrency_);
    flags->Add("requests", "N", "requests in all (default 3)", &requests_);
    flags->Add("seed", "N", "of the random prompts (default 1)", &seed_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    if (!arguments.empty()) return UsageError("bench takes no arguments");
    GF_RETURN_IF_ERROR(CheckLoad());
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    GF_ASSIGN_OR_RETURN(const inference::v1::Model model, connection->GetModel());
    const std::vector<BenchSample> samples = MeasureAll(connection.get(), model.vocab_size());
    for (const BenchSample& sample : samples) {
      if (console->interrupts != nullptr && console->interrupts->raised()) return sample.status;
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
  absl::Status CheckLoad() const {
    const struct {
      const char* flag;
      int value, most;
    } bounds[] = {{"--prompt-tokens", prompt_tokens_, 1 << 24},
                  {"--output-tokens", output_tokens_, 1 << 24},
                  {"--concurrency", concurrency_, 1024},
                  {"--requests", requests_, 1 << 20}};
    for (const auto& [flag, value, most] : bounds) {
      if (value < 1 || value > most) {
        return UsageError(absl::StrCat(flag, " is ", value, ", must be within 1 and ", most));
      }
    }
    return absl::OkStatus();
  }

  // A thread per request under way. If the warm-up fails, so would the rest.
  std::vector<BenchSample> MeasureAll(Connection* connection, uint32_t vocab_size) const {
    const auto request = [&](uint64_t index) {
      return MakeRequest(vocab_size, prompt_tokens_, output_tokens_, seed_ + index);
    };
    const BenchSample warm_up = Measure(connection, request(0), 0);
    if (!warm_up.status.ok()) return {warm_up};
    std::vector<BenchSample> samples(static_cast<size_t>(requests_));
    for (int first = 0; first < requests_; first += concurrency_) {
      const int end = std::min(first + concurrency_, requests_);
      std::vector<std::thread> threads;
      for (int i = first; i < end; ++i) {
        threads.emplace_back(
            [&, i] { samples[i] = Measure(connection, request(i + 1), first / concurrency_); });
      }
      for (std::thread& thread : threads) thread.join();
    }
    return samples;
  }

  ConnectionFlags connection_;
  OutputFlag output_;
  int prompt_tokens_ = 512;
  int output_tokens_ = 128;
  int concurrency_ = 1;
  int requests_ = 3;
  uint64_t seed_ = 1;
};

}  // namespace

std::unique_ptr<Verb> MakeBenchVerb() { return std::make_unique<BenchVerb>(); }

}  // namespace gatefold::cli

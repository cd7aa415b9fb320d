#include "cli/bench_load.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "cli/answer.h"
#include "cli/error_report.h"

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

}  // namespace

absl::StatusOr<LoadSize> FitLoad(const LoadSize& usual, std::optional<int> prompt_tokens,
                                 std::optional<int> output_tokens, uint32_t limit) {
  const int most = static_cast<int>(std::min<uint32_t>(limit, 1 << 24));
  for (const auto& [flag, value] :
       {std::pair("--prompt-tokens", prompt_tokens), std::pair("--output-tokens", output_tokens)}) {
    if (value.has_value() && (*value < 1 || *value >= most)) {
      return UsageError(absl::StrCat(flag, " is ", *value, ", must be within 1 and ", most - 1,
                                     ": a sequence has at most ", most, " tokens"));
    }
  }
  LoadSize size;
  size.output_tokens = output_tokens.value_or(
      std::min(usual.output_tokens,
               prompt_tokens.has_value() ? most - *prompt_tokens : std::max(1, most / 4)));
  size.prompt_tokens =
      prompt_tokens.value_or(std::min(usual.prompt_tokens, most - size.output_tokens));
  if (size.prompt_tokens + size.output_tokens > most) {
    return UsageError(absl::StrCat("--prompt-tokens ", size.prompt_tokens, " and --output-tokens ",
                                   size.output_tokens, " are more than the ", most,
                                   " tokens that a sequence has at most"));
  }
  return size;
}

std::vector<BenchSample> RunBenchLoad(Connection* connection, uint32_t vocab_size,
                                      const BenchLoad& load) {
  const auto request = [&](uint64_t index) {
    return MakeRequest(vocab_size, load.size.prompt_tokens, load.size.output_tokens,
                       load.seed + index);
  };
  const BenchSample warm_up = Measure(connection, request(0), 0);
  if (!warm_up.status.ok()) return {warm_up};
  std::vector<BenchSample> samples(static_cast<size_t>(load.requests));
  for (int first = 0; first < load.requests; first += load.concurrency) {
    if (connection->interrupts()->raised()) {
      samples.resize(static_cast<size_t>(first) + 1);
      samples.back().status = absl::CancelledError("interrupted");
      break;
    }
    const int end = std::min(first + load.concurrency, load.requests);
    std::vector<std::thread> threads;
    for (int i = first; i < end; ++i) {
      threads.emplace_back(
          [&, i] { samples[i] = Measure(connection, request(i + 1), first / load.concurrency); });
    }
    for (std::thread& thread : threads) thread.join();
  }
  return samples;
}

}  // namespace gatefold::cli

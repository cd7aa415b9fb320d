#include "cli/compare/comparison.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/bench_load.h"
#include "cli/bench_report.h"
#include "cli/compare/model_server.h"
#include "cli/error_report.h"
#include "cli/eval/progress_bar.h"
#include "expert-service/expert_backend.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/model/model_weights.h"

namespace gatefold::cli {
namespace {

constexpr int kEvalConcurrency = 4;
constexpr absl::Duration kLeastTime = absl::Milliseconds(500);  // of one measurement

// What quantising saves in the first `n` experts of every layer.
uint64_t SavedBytes(const ModelWeights& weights, WeightKind kind, int n) {
  if (kind == WeightKind::kCheckpoint) return 0;
  const auto backend = MakeCpuExpertBackend(nullptr, {.weights = kind});
  uint64_t saved = 0;
  for (int layer = 0; layer < weights.config().n_layers; ++layer) {
    for (int expert = 0; expert < n; ++expert) {
      const auto sizes = ExpertLayout::Of(weights.Expert(layer, expert)).sizes();
      saved += weights.ExpertBytes(layer, expert) - backend->HeldBytes(sizes);
    }
  }
  return saved;
}

absl::StatusOr<ModelMeasurement> Describe(const std::string& dir,
                                          const ComparisonOptions& options) {
  const auto weights = ModelWeights::Open(dir, {options.n_slices});
  if (!weights.ok()) return ModelFolderError(dir, weights.status());
  const RoleBytes& bytes = (*weights)->role_bytes();
  ModelMeasurement measurement;
  measurement.dir = dir;
  const ModelConfig& config = (*weights)->config();
  measurement.weight_bytes = bytes.attention + bytes.router + bytes.experts -
                             SavedBytes(**weights, options.weights, config.experts_per_layer());
  measurement.bytes_per_token = (*weights)->n_active_bytes() -
                                SavedBytes(**weights, options.weights, config.experts_per_row());
  return measurement;
}

// Rates of one model at `n` sequences at a time: (prefill, decode).
absl::StatusOr<std::pair<double, double>> MeasureSpeed(ModelServer* server, uint32_t vocab_size,
                                                       const LoadSize& size, int n, int round) {
  BenchLoad load;
  load.size.prompt_tokens = std::max(1, size.prompt_tokens / n);
  load.size.output_tokens = size.output_tokens;
  load.concurrency = load.requests = n;
  // A small model is done in milliseconds, in which when a thread of ours wakes up is all one sees.
  std::vector<BenchSample> samples;
  const absl::Time begin = absl::Now();
  for (int wave = 0; wave == 0 || absl::Now() - begin < kLeastTime; ++wave) {
    load.seed = static_cast<uint64_t>(round) * 1'000'000 + wave * 1000 + 1;
    for (BenchSample& sample : RunBenchLoad(server->connection(), vocab_size, load)) {
      GF_RETURN_IF_ERROR(sample.status);
      sample.wave = wave;
      samples.push_back(std::move(sample));
    }
  }
  const BenchReport report = MakeBenchReport(samples);
  return std::make_pair(report.prefill_tokens_per_second, report.decode_tokens_per_second);
}

// Models are named by their folder's last part, or by all of it where several have the same.
void TellApart(std::vector<ModelMeasurement>* models) {
  std::map<std::string, int> n_named;
  for (const ModelMeasurement& each : *models) ++n_named[each.model.name()];
  for (ModelMeasurement& each : *models) {
    if (n_named[each.model.name()] > 1) each.model.set_name(each.dir);
  }
}

}  // namespace

absl::StatusOr<std::vector<ModelMeasurement>> Compare(const ComparisonOptions& options,
                                                      Interrupts* interrupts) {
  std::vector<ModelMeasurement> models;
  for (const std::string& dir : options.model_dirs) {
    GF_ASSIGN_OR_RETURN(models.emplace_back(), Describe(dir, options));
  }
  std::vector<std::unique_ptr<ModelServer>> servers;
  for (ModelMeasurement& model : models) {
    GF_ASSIGN_OR_RETURN(servers.emplace_back(),
                        ModelServer::Start(model.dir, options.serve_flags, interrupts));
    model.load_seconds = servers.back()->load_seconds();
    GF_ASSIGN_OR_RETURN(model.model, servers.back()->connection()->GetModel());
  }
  TellApart(&models);
  uint32_t shortest = UINT32_MAX;
  for (const ModelMeasurement& model : models) {
    shortest = std::min(shortest, model.model.max_sequence_tokens());
  }
  GF_ASSIGN_OR_RETURN(const LoadSize size,
                      FitLoad({.prompt_tokens = 512, .output_tokens = 64}, options.prompt_tokens,
                              options.output_tokens, shortest));
  {
    const size_t n_steps = options.rounds * models.size() * options.sequences.size();
    ProgressBar progress("speed", "measurements", n_steps);
    for (int round = 0; round < options.rounds; ++round) {
      for (const int n : options.sequences) {
        for (size_t i = 0; i < models.size(); ++i) {
          absl::StatusOr<std::pair<double, double>> rates =
              MeasureSpeed(servers[i].get(), models[i].model.vocab_size(), size, n, round);
          if (!rates.ok()) return Annotate(rates.status(), models[i].dir);
          if (n == options.sequences[0]) models[i].prefill.push_back(rates->first);
          models[i].decode[n].push_back(rates->second);
          progress.Add(1);
        }
      }
    }
  }
  // One window for all, or a model that sees more would seem to know more.
  Scorer::Options scoring;
  scoring.window =
      options.window > 0 ? options.window : std::min<uint32_t>(kDefaultWindow, shortest);
  for (size_t i = 0; i < models.size(); ++i) {
    // Before the evaluation: its long windows are not what a server of requests needs.
    GF_ASSIGN_OR_RETURN(models[i].peak_memory_bytes, servers[i]->PeakMemoryBytes());
    if (options.texts.texts.empty() && options.texts.tasks.empty()) continue;
    absl::StatusOr<Evaluation> quality =
        Evaluate(servers[i]->connection(), options.texts, scoring, kEvalConcurrency);
    if (!quality.ok()) return Annotate(quality.status(), models[i].dir);
    models[i].quality = *std::move(quality);
  }
  return models;
}

double Median(std::vector<double> values) { return Percentile(values, 50); }

std::vector<double> RoundRatios(const std::vector<double>& rates,
                                const std::vector<double>& other) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(rates.size(), other.size()); ++i) {
    ratios.push_back(rates[i] / other[i]);
  }
  return ratios;
}

}  // namespace gatefold::cli

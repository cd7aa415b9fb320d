#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/eval/evaluation.h"
#include "cli/interrupts.h"
#include "gatefold/inference/v1/model.pb.h"
#include "gatefold/tensor/quantise.h"

namespace gatefold::cli {

struct ComparisonOptions {
  std::vector<std::string> model_dirs;
  std::vector<std::string> serve_flags;     // for each of the servers
  std::vector<int32_t> sequences = {1, 8};  // decode at so many sequences at a time
  // Over all sequences that are decoded at a time, and of each of them. Not given: 512 and 64, or
  // what the shortest model has room for.
  std::optional<int> prompt_tokens, output_tokens;
  int rounds = 3;
  uint32_t window =
      0;  // of the evaluation; 0: what the model of the shortest one can, at most 1024
  EvaluationInput texts;  // empty: speed and sizes alone
  int n_slices = 8;
  WeightKind weights = WeightKind::kCheckpoint;  // how experts are kept
};

// What one model is and does. Rates are tokens per second, one per round.
struct ModelMeasurement {
  std::string dir;
  inference::v1::Model model;
  uint64_t weight_bytes = 0;
  uint64_t bytes_per_token = 0;  // of weights, that one token's way reads
  uint64_t peak_memory_bytes = 0;
  double load_seconds = 0;
  std::vector<double> prefill;
  std::map<int, std::vector<double>> decode;  // by sequences at a time
  std::optional<Evaluation> quality;
};

// Serves all models side by side, each in a process of its own, and measures them by turns: in each
// round every model once at every number of sequences. Speeds of a machine drift; a ratio of two
// models is taken within a round.
absl::StatusOr<std::vector<ModelMeasurement>> Compare(const ComparisonOptions& options,
                                                      Interrupts* interrupts);

double Median(std::vector<double> values);  // NaN of nothing

// How many times as fast as `other` the first is, round by round.
std::vector<double> RoundRatios(const std::vector<double>& rates, const std::vector<double>& other);

}  // namespace gatefold::cli

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cli/connection.h"

namespace gatefold::cli {

inline constexpr uint32_t kDefaultWindow = 1024;

// How often each expert of each layer was chosen.
class ExpertCounts {
 public:
  // Counts the tokens [first_token, n_tokens) of a trace.
  // InvalidArgument if the trace contradicts itself or names an expert that the model has not.
  absl::Status Add(const inference::v1::RoutingTrace& trace, size_t first_token, size_t n_experts);
  void Add(const ExpertCounts& other);

  // By layer, those with gates in ascending order, and expert. Empty: nothing was routed.
  const std::vector<std::vector<uint64_t>>& by_layer() const { return by_layer_; }
  const std::vector<uint32_t>& layer_ids() const { return layer_ids_; }
  // Of all choices in that layer, in [0, 1].
  double Share(size_t layer, size_t expert) const;
  double SmallestShare() const;

 private:
  std::vector<uint32_t> layer_ids_;
  std::vector<std::vector<uint64_t>> by_layer_;
};

// Log-likelihoods of texts under a model behind the public API. Threads: safe.
class Scorer {
 public:
  struct Options {
    uint32_t window = 0;  // tokens the model sees at once; 0: all it can, at most 1024
    bool routing = false;
  };
  struct Tokens {
    std::vector<int32_t> ids;
    size_t n_text = 0;        // ids without those that the tokenizer adds
    size_t n_free_bytes = 0;  // of text in the first token, if nothing stands before it to give it
                              // a likelihood
  };
  struct Score {
    double nats = 0;  // minus the sum of natural log-probabilities
    size_t n_tokens = 0;
    ExpertCounts experts;  // of the scored tokens, with options.routing
  };

  // Errors: InvalidArgument if the window is more than the model's longest sequence.
  static absl::StatusOr<Scorer> Create(Connection* connection, const Options& options);

  const inference::v1::Model& model() const { return model_; }
  uint32_t window() const { return window_; }

  // With the special tokens that the tokenizer sets before a text.
  absl::StatusOr<Tokens> Tokenize(const std::string& text) const;

  // Scores ids[first..] given those before them. Texts longer than the window are read in windows
  // that overlap by half, so that every token but the first ones has half a window before it.
  // first >= 1.
  absl::StatusOr<Score> ScoreTokens(absl::Span<const int32_t> ids, size_t first) const;

 private:
  Scorer(Connection* connection, inference::v1::Model model, uint32_t window, bool routing)
      : connection_(connection), model_(std::move(model)), window_(window), routing_(routing) {}
  // One window: ids[from..] are new.
  absl::Status ScoreWindow(absl::Span<const int32_t> ids, size_t from, Score* score) const;

  Connection* connection_;
  inference::v1::Model model_;
  uint32_t window_;
  bool routing_;
};

}  // namespace gatefold::cli

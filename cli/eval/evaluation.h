#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/connection.h"
#include "cli/eval/documents.h"
#include "cli/eval/scorer.h"
#include "cli/eval/tasks.h"

namespace gatefold::cli {

// How well a model foretells the texts of one tag. Sums add up over tags.
struct TextQuality {
  std::string tag;
  size_t n_documents = 0;
  size_t n_tokens = 0;       // that were scored
  size_t n_bytes = 0;        // of the text they stand for
  size_t n_characters = 0;   // code points of the whole text
  size_t n_text_tokens = 0;  // of the whole text; n_tokens unless a first token has no likelihood
  double nats = 0;
  ExpertCounts experts;

  double Perplexity() const;  // per token
  double BitsPerByte() const;
  // Fertility: of two languages the one with more tokens per character is served worse.
  double TokensPerCharacter() const;
  void Add(const TextQuality& other);
};

// The questions of one tag: those with choices, or those without.
struct TaskQuality {
  std::string tag;
  bool has_choices = false;
  size_t n = 0;
  size_t n_right = 0;             // choices: by log-likelihood; else: the answer word for word
  size_t n_right_normalized = 0;  // choices: by log-likelihood over the choice's length in bytes

  double Accuracy() const;
  double NormalizedAccuracy() const;
};

struct Evaluation {
  inference::v1::Model model;
  uint32_t window = 0;
  std::vector<TextQuality> texts;
  std::vector<TaskQuality> tasks;  // by tag, in order of appearance

  TextQuality AllTexts() const;
  // Of a text whose tokens were routed: names layers and experts for all. Null: none was.
  const ExpertCounts* Routed() const;
  double MeanBitsPerByte() const;  // over tags with scored tokens, each alike
};

struct EvaluationInput {
  std::vector<TaggedTexts> texts;
  std::vector<TaskItem> tasks;
};

// Runs it all, `concurrency` requests at a time, with a bar of progress on stderr. A question of
// choices is scored as lm-evaluation-harness does: the tokens of " " + choice after the question.
// One without is answered greedily up to the end of a line.
absl::StatusOr<Evaluation> Evaluate(Connection* connection, const EvaluationInput& input,
                                    const Scorer::Options& options, int concurrency);

}  // namespace gatefold::cli

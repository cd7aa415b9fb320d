#include "cli/eval/evaluation.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "cli/answer.h"
#include "cli/eval/progress_bar.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

constexpr double kNatsPerBit = 0.6931471805599453;
// A right answer may be written with more tokens than the tokenizer takes for it.
constexpr uint32_t kSpareAnswerTokens = 8;

double Ratio(double a, double b) { return b == 0 ? std::nan("") : a / b; }

// Calls work(0) to work(n - 1), so many at a time, in any order. The first error ends it.
absl::Status ForEach(size_t n, int concurrency, Interrupts* interrupts,
                     const std::function<absl::Status(size_t)>& work) {
  std::atomic<size_t> next{0};
  absl::Mutex mu;
  absl::Status first_error;
  const auto run = [&] {
    for (size_t i = next++; i < n; i = next++) {
      absl::Status status = interrupts != nullptr && interrupts->raised()
                                ? absl::CancelledError("interrupted")
                                : work(i);
      if (status.ok()) continue;
      next = n;
      const absl::MutexLock lock(&mu);
      if (first_error.ok()) first_error = std::move(status);
      return;
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < concurrency; ++i) threads.emplace_back(run);
  for (std::thread& thread : threads) thread.join();
  return first_error;
}

size_t CountCharacters(absl::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    return (static_cast<uint8_t>(byte) & 0xC0) != 0x80;
  }));
}

absl::StatusOr<TextQuality> ScoreDocument(const Scorer& scorer, const std::string& document) {
  GF_ASSIGN_OR_RETURN(const Scorer::Tokens tokens, scorer.Tokenize(document));
  GF_ASSIGN_OR_RETURN(Scorer::Score score, scorer.ScoreTokens(tokens.ids, 1));
  TextQuality quality;
  quality.n_documents = 1;
  quality.n_tokens = score.n_tokens;
  quality.n_text_tokens = tokens.n_text;
  quality.n_bytes = document.size() - std::min(document.size(), tokens.n_free_bytes);
  quality.n_characters = CountCharacters(document);
  quality.nats = score.nats;
  quality.experts = std::move(score.experts);
  return quality;
}

struct Verdict {
  bool right = false;
  bool right_normalized = false;
};

absl::StatusOr<Verdict> Choose(const Scorer& scorer, const TaskItem& item) {
  // Blanks at the question's end belong to the choice: tokens start with them.
  const std::string question(absl::StripTrailingAsciiWhitespace(item.question));
  GF_ASSIGN_OR_RETURN(const Scorer::Tokens context, scorer.Tokenize(question));
  size_t best = 0, best_normalized = 0;
  double least = std::numeric_limits<double>::infinity(), least_normalized = least;
  for (size_t i = 0; i < item.choices.size(); ++i) {
    const std::string& choice = item.choices[i];
    GF_ASSIGN_OR_RETURN(const Scorer::Tokens whole,
                        scorer.Tokenize(absl::StrCat(question, " ", choice)));
    const size_t first = std::max<size_t>(1, std::min(context.ids.size(), whole.ids.size() - 1));
    GF_ASSIGN_OR_RETURN(const Scorer::Score score, scorer.ScoreTokens(whole.ids, first));
    const double normalized = score.nats / static_cast<double>(choice.size());
    if (score.nats < least) least = score.nats, best = i;
    if (normalized < least_normalized) least_normalized = normalized, best_normalized = i;
  }
  return Verdict{best == item.answer_index, best_normalized == item.answer_index};
}

absl::StatusOr<Verdict> Write(Connection* connection, const Scorer& scorer, const TaskItem& item) {
  GF_ASSIGN_OR_RETURN(const Scorer::Tokens answer, scorer.Tokenize(item.answer));
  inference::v1::GenerateTextRequest request;
  request.mutable_prompt()->set_text(item.question);
  inference::v1::GenerationConfig* config = request.mutable_config();
  config->set_temperature(0);
  config->set_repetition_penalty(1);
  config->set_max_output_tokens(static_cast<uint32_t>(answer.ids.size()) + kSpareAnswerTokens);
  GF_ASSIGN_OR_RETURN(const Answer written, GenerateAnswer(connection, request, nullptr));
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(written.text);
  const std::vector<absl::string_view> lines = absl::StrSplit(text, absl::MaxSplits('\n', 1));
  const bool right =
      absl::StripAsciiWhitespace(lines[0]) == absl::StripAsciiWhitespace(item.answer);
  return Verdict{right, right};
}

absl::StatusOr<std::vector<TextQuality>> ScoreTexts(const Scorer& scorer,
                                                    const std::vector<TaggedTexts>& texts,
                                                    int concurrency, Interrupts* interrupts) {
  std::vector<TextQuality> qualities(texts.size());
  std::vector<std::pair<size_t, const std::string*>> work;  // tag, document
  size_t n_bytes = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    qualities[i].tag = texts[i].tag;
    n_bytes += texts[i].n_bytes();
    for (const std::string& document : texts[i].documents) work.emplace_back(i, &document);
  }
  ProgressBar progress("texts", "bytes", n_bytes);
  // Added up in order at the end: sums of floating point must not depend on who was first.
  std::vector<TextQuality> parts(work.size());
  GF_RETURN_IF_ERROR(ForEach(work.size(), concurrency, interrupts, [&](size_t i) -> absl::Status {
    absl::StatusOr<TextQuality> part = ScoreDocument(scorer, *work[i].second);
    if (!part.ok()) {
      const std::vector<std::string>& documents = texts[work[i].first].documents;
      return Annotate(part.status(),
                      absl::StrCat("document ", work[i].second - documents.data() + 1, " of \"",
                                   texts[work[i].first].tag, "\""));
    }
    parts[i] = *std::move(part);
    progress.Add(work[i].second->size());
    return absl::OkStatus();
  }));
  for (size_t i = 0; i < work.size(); ++i) qualities[work[i].first].Add(parts[i]);
  return qualities;
}

absl::StatusOr<std::vector<TaskQuality>> AnswerTasks(Connection* connection, const Scorer& scorer,
                                                     const std::vector<TaskItem>& items,
                                                     int concurrency) {
  std::vector<Verdict> verdicts(items.size());
  ProgressBar progress("questions", "questions", items.size());
  GF_RETURN_IF_ERROR(
      ForEach(items.size(), concurrency, connection->interrupts(), [&](size_t i) -> absl::Status {
        const absl::StatusOr<Verdict> verdict = items[i].choices.empty()
                                                    ? Write(connection, scorer, items[i])
                                                    : Choose(scorer, items[i]);
        if (!verdict.ok()) {
          return Annotate(verdict.status(), items[i].where);
        }
        verdicts[i] = *verdict;
        progress.Add(1);
        return absl::OkStatus();
      }));
  std::vector<TaskQuality> qualities;
  std::map<std::pair<std::string, bool>, size_t> places;
  for (size_t i = 0; i < items.size(); ++i) {
    const bool has_choices = !items[i].choices.empty();
    const auto [place, is_new] =
        places.emplace(std::make_pair(items[i].tag, has_choices), qualities.size());
    if (is_new) qualities.push_back({items[i].tag, has_choices, 0, 0, 0});
    TaskQuality& quality = qualities[place->second];
    ++quality.n;
    quality.n_right += verdicts[i].right;
    quality.n_right_normalized += verdicts[i].right_normalized;
  }
  return qualities;
}

}  // namespace

double TextQuality::Perplexity() const {
  return std::exp(Ratio(nats, static_cast<double>(n_tokens)));
}

double TextQuality::BitsPerByte() const {
  return Ratio(nats / kNatsPerBit, static_cast<double>(n_bytes));
}

double TextQuality::TokensPerCharacter() const {
  return Ratio(static_cast<double>(n_text_tokens), static_cast<double>(n_characters));
}

void TextQuality::Add(const TextQuality& other) {
  n_documents += other.n_documents;
  n_tokens += other.n_tokens;
  n_text_tokens += other.n_text_tokens;
  n_bytes += other.n_bytes;
  n_characters += other.n_characters;
  nats += other.nats;
  experts.Add(other.experts);
}

double TaskQuality::Accuracy() const {
  return Ratio(static_cast<double>(n_right), static_cast<double>(n));
}

double TaskQuality::NormalizedAccuracy() const {
  return Ratio(static_cast<double>(n_right_normalized), static_cast<double>(n));
}

TextQuality Evaluation::AllTexts() const {
  TextQuality all;
  all.tag = "all";
  for (const TextQuality& text : texts) all.Add(text);
  return all;
}

const ExpertCounts* Evaluation::Routed() const {
  for (const TextQuality& text : texts) {
    if (!text.experts.by_layer().empty()) return &text.experts;
  }
  return nullptr;
}

double Evaluation::MeanBitsPerByte() const {
  double sum = 0, n = 0;
  for (const TextQuality& text : texts) {
    if (text.n_tokens == 0) continue;  // a lone first token, which nothing stands before
    sum += text.BitsPerByte();
    ++n;
  }
  return Ratio(sum, n);
}

absl::StatusOr<Evaluation> Evaluate(Connection* connection, const EvaluationInput& input,
                                    const Scorer::Options& options, int concurrency) {
  GF_ASSIGN_OR_RETURN(const Scorer scorer, Scorer::Create(connection, options));
  Evaluation evaluation;
  evaluation.model = scorer.model();
  evaluation.window = scorer.window();
  if (!input.texts.empty()) {
    GF_ASSIGN_OR_RETURN(evaluation.texts,
                        ScoreTexts(scorer, input.texts, concurrency, connection->interrupts()));
  }
  if (!input.tasks.empty()) {
    GF_ASSIGN_OR_RETURN(evaluation.tasks,
                        AnswerTasks(connection, scorer, input.tasks, concurrency));
  }
  return evaluation;
}

}  // namespace gatefold::cli

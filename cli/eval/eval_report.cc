#include "cli/eval/eval_report.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace gatefold::cli {
namespace {

bool Routed(const Evaluation& evaluation) { return evaluation.Routed() != nullptr; }

Json TextJson(const TextQuality& text) {
  return {{"documents", text.n_documents},
          {"tokens", text.n_tokens},
          {"bytes", text.n_bytes},
          {"characters", text.n_characters},
          {"nats", text.nats},
          {"perplexity", text.Perplexity()},
          {"bits_per_byte", text.BitsPerByte()},
          {"tokens_per_character", text.TokensPerCharacter()}};
}

Json SharesJson(const ExpertCounts& experts) {
  Json layers = Json::array();
  for (size_t layer = 0; layer < experts.by_layer().size(); ++layer) {
    Json row = Json::array();
    for (size_t expert = 0; expert < experts.by_layer()[layer].size(); ++expert) {
      row.push_back(experts.Share(layer, expert));
    }
    layers.push_back(std::move(row));
  }
  return layers;
}

std::vector<std::string> TextRow(const TextQuality& text) {
  return {text.tag,
          absl::StrCat(text.n_documents),
          absl::StrCat(text.n_bytes),
          absl::StrCat(text.n_tokens),
          absl::StrFormat("%.3f", text.TokensPerCharacter()),
          absl::StrFormat("%.2f", text.Perplexity()),
          absl::StrFormat("%.4f", text.BitsPerByte())};
}

void PrintTexts(const Evaluation& evaluation, std::ostream& out) {
  Table table(
      {"texts", ">documents", ">bytes", ">tokens", ">tokens/char", ">perplexity", ">bits/byte"});
  for (const TextQuality& text : evaluation.texts) table.AddRow(TextRow(text));
  if (evaluation.texts.size() > 1) table.AddRow(TextRow(evaluation.AllTexts()));
  table.Print(out);
  if (evaluation.texts.size() > 1) {
    out << absl::StrFormat("mean over tags: %.4f bits/byte\n", evaluation.MeanBitsPerByte());
  }
}

void PrintTasks(const Evaluation& evaluation, std::ostream& out) {
  Table table({"questions", "kind", ">n", ">right %", ">by length %"});
  for (const TaskQuality& task : evaluation.tasks) {
    table.AddRow(
        {task.tag, task.has_choices ? "choice" : "exact", absl::StrCat(task.n),
         absl::StrFormat("%.1f", 100 * task.Accuracy()),
         task.has_choices ? absl::StrFormat("%.1f", 100 * task.NormalizedAccuracy()) : ""});
  }
  table.Print(out);
}

void PrintRouting(const Evaluation& evaluation, std::ostream& out) {
  const TextQuality all = evaluation.AllTexts();
  out << "percent of each layer's choices, by expert:\n";
  for (size_t layer = 0; layer < all.experts.by_layer().size(); ++layer) {
    std::vector<std::string> headers = {absl::StrCat("layer ", all.experts.layer_ids()[layer])};
    for (size_t e = 0; e < all.experts.by_layer()[layer].size(); ++e) {
      headers.push_back(absl::StrCat(">", e));
    }
    Table table(headers);
    const auto add = [&](const TextQuality& text) {
      std::vector<std::string> row = {text.tag};
      for (size_t e = 0; e + 1 < headers.size(); ++e) {
        row.push_back(absl::StrFormat("%.1f", 100 * text.experts.Share(layer, e)));
      }
      table.AddRow(row);
    };
    for (const TextQuality& text : evaluation.texts) add(text);
    if (evaluation.texts.size() > 1) add(all);
    table.Print(out);
  }
  out << absl::StrFormat("least used expert of any layer: %.1f %%\n",
                         100 * all.experts.SmallestShare());
}

}  // namespace

Json EvalJson(const Evaluation& evaluation) {
  Json json = {{"model", evaluation.model.name()}, {"window", evaluation.window}};
  if (!evaluation.texts.empty()) {
    Json tags = Json::object();
    for (const TextQuality& text : evaluation.texts) tags[text.tag] = TextJson(text);
    json["texts"] = {{"tags", std::move(tags)},
                     {"all", TextJson(evaluation.AllTexts())},
                     {"mean_bits_per_byte", evaluation.MeanBitsPerByte()}};
  }
  if (!evaluation.tasks.empty()) {
    Json tags = Json::object();
    for (const TaskQuality& task : evaluation.tasks) {
      Json& entry = tags[task.tag][task.has_choices ? "choice" : "exact"];
      entry = {{"n", task.n}, {"accuracy", task.Accuracy()}};
      if (task.has_choices) entry["accuracy_normalized"] = task.NormalizedAccuracy();
    }
    json["tasks"] = std::move(tags);
  }
  if (Routed(evaluation)) {
    const TextQuality all = evaluation.AllTexts();
    Json tags = Json::object();
    for (const TextQuality& text : evaluation.texts) tags[text.tag] = SharesJson(text.experts);
    json["routing"] = {{"layers", all.experts.layer_ids()},
                       {"smallest_share", all.experts.SmallestShare()},
                       {"all", SharesJson(all.experts)},
                       {"tags", std::move(tags)}};
  }
  return json;
}

void PrintEvaluation(const Evaluation& evaluation, std::ostream& out) {
  out << evaluation.model.name() << ", windows of " << evaluation.window << " tokens\n";
  if (!evaluation.texts.empty()) PrintTexts(evaluation, out);
  if (!evaluation.tasks.empty()) PrintTasks(evaluation, out);
  if (Routed(evaluation)) PrintRouting(evaluation, out);
}

}  // namespace gatefold::cli

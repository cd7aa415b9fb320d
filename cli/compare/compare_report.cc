#include "cli/compare/compare_report.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/bench_report.h"
#include "cli/eval/eval_report.h"

namespace gatefold::cli {
namespace {

// The first model against another.
struct Against {
  const ModelMeasurement* other;
  int sequences;
  double times_as_fast;  // median over rounds
  double ideal;
};

std::vector<Against> CompareWithFirst(const std::vector<ModelMeasurement>& models) {
  std::vector<Against> all;
  const ModelMeasurement& first = models[0];
  for (size_t i = 1; i < models.size(); ++i) {
    for (const auto& [n, rates] : first.decode) {
      all.push_back({&models[i], n, Median(RoundRatios(rates, models[i].decode.at(n))),
                     static_cast<double>(models[i].bytes_per_token) /
                         static_cast<double>(first.bytes_per_token)});
    }
  }
  return all;
}

std::string Rate(double rate) {
  if (std::isnan(rate)) return "";
  return rate < 100 ? absl::StrFormat("%.1f", rate) : absl::StrFormat("%.0f", rate);
}

std::string School(const inference::v1::Model& model) {
  return model.n_experts() > 0 ? absl::StrCat(model.top_k(), " of ", model.n_experts(), " experts")
                               : "dense";
}

std::string Millions(uint64_t n) { return absl::StrFormat("%.1f M", static_cast<double>(n) / 1e6); }

// One row per quantity, one column per model: names of models are long, quantities are many.
using Row = std::pair<std::string, std::vector<std::string>>;

template <typename Cell>
Row MakeRow(const std::string& label, const std::vector<ModelMeasurement>& models, Cell cell) {
  Row row{label, {}};
  for (const ModelMeasurement& model : models) row.second.push_back(cell(model));
  return row;
}

std::vector<Row> QualityRows(const std::vector<ModelMeasurement>& models) {
  std::vector<Row> rows;
  if (!models[0].quality) return rows;
  const Evaluation& first = *models[0].quality;
  rows.push_back(MakeRow("window, tokens", models,
                         [](const auto& m) { return absl::StrCat(m.quality->window); }));
  for (size_t i = 0; i < first.texts.size(); ++i) {
    rows.push_back(MakeRow(
        absl::StrCat("bits/byte ", first.texts[i].tag), models,
        [i](const auto& m) { return absl::StrFormat("%.3f", m.quality->texts[i].BitsPerByte()); }));
  }
  if (first.texts.size() > 1) {
    rows.push_back(MakeRow("bits/byte, mean over tags", models, [](const auto& m) {
      return absl::StrFormat("%.3f", m.quality->MeanBitsPerByte());
    }));
  }
  for (size_t i = 0; i < first.tasks.size(); ++i) {
    rows.push_back(MakeRow(absl::StrCat("right, ", first.tasks[i].tag), models, [i](const auto& m) {
      const TaskQuality& task = m.quality->tasks[i];
      return absl::StrFormat(
          "%.1f %%", 100 * (task.has_choices ? task.NormalizedAccuracy() : task.Accuracy()));
    }));
  }
  return rows;
}

std::vector<Row> SpeedRows(const std::vector<ModelMeasurement>& models) {
  std::vector<Row> rows;
  rows.push_back(MakeRow("kind", models, [](const auto& m) { return School(m.model); }));
  rows.push_back(
      MakeRow("parameters", models, [](const auto& m) { return Millions(m.model.parameters()); }));
  rows.push_back(MakeRow("  for one token", models,
                         [](const auto& m) { return Millions(m.model.active_parameters()); }));
  rows.push_back(
      MakeRow("weights", models, [](const auto& m) { return FormatBytes(m.weight_bytes); }));
  rows.push_back(MakeRow("  read for one token", models,
                         [](const auto& m) { return FormatBytes(m.bytes_per_token); }));
  rows.push_back(MakeRow("peak memory", models,
                         [](const auto& m) { return FormatBytes(m.peak_memory_bytes); }));
  rows.push_back(MakeRow("load, s", models,
                         [](const auto& m) { return absl::StrFormat("%.1f", m.load_seconds); }));
  rows.push_back(
      MakeRow("prefill, tokens/s", models, [](const auto& m) { return Rate(Median(m.prefill)); }));
  for (const auto& [n, rates] : models[0].decode) {
    rows.push_back(
        MakeRow(absl::StrCat("decode, tokens/s, ", n, n == 1 ? " sequence" : " sequences"), models,
                [n = n](const auto& m) { return Rate(Median(m.decode.at(n))); }));
  }
  return rows;
}

}  // namespace

Json ComparisonJson(const std::vector<ModelMeasurement>& models) {
  Json list = Json::array();
  for (const ModelMeasurement& m : models) {
    Json decode = Json::object();
    for (const auto& [n, rates] : m.decode) decode[absl::StrCat(n)] = Median(rates);
    Json entry = {{"model", m.model.name()},
                  {"path", m.dir},
                  {"family", m.model.family()},
                  {"parameters", m.model.parameters()},
                  {"active_parameters", m.model.active_parameters()},
                  {"weight_bytes", m.weight_bytes},
                  {"bytes_per_token", m.bytes_per_token},
                  {"peak_memory_bytes", m.peak_memory_bytes},
                  {"load_seconds", m.load_seconds},
                  {"prefill_tokens_per_second", Median(m.prefill)},
                  {"decode_tokens_per_second", std::move(decode)}};
    if (m.quality) entry["eval"] = EvalJson(*m.quality);
    list.push_back(std::move(entry));
  }
  Json against = Json::array();
  for (const Against& a : CompareWithFirst(models)) {
    against.push_back({{"model", a.other->model.name()},
                       {"path", a.other->dir},
                       {"sequences", a.sequences},
                       {"times_as_fast", a.times_as_fast},
                       {"ideal", a.ideal},
                       {"share_of_ideal", a.times_as_fast / a.ideal}});
  }
  return {{"models", std::move(list)}, {"against_first", std::move(against)}};
}

void PrintComparison(const std::vector<ModelMeasurement>& models, std::ostream& out) {
  std::vector<std::string> headers = {""};
  for (const ModelMeasurement& m : models) headers.push_back(">" + m.model.name());
  Table table(headers);
  for (const auto& rows : {SpeedRows(models), QualityRows(models)}) {
    for (const Row& row : rows) {
      std::vector<std::string> cells = {row.first};
      cells.insert(cells.end(), row.second.begin(), row.second.end());
      table.AddRow(cells);
    }
  }
  table.Print(out);
  if (models.size() < 2) return;
  out << "\ndecode of " << models[0].model.name()
      << ", times as fast as the others (medians of ratios within a round); the ideal is the ratio\n"
         "of the bytes that one token reads:\n";
  Table ratios({"against", ">sequences", ">times as fast", ">ideal", ">share of ideal"});
  for (const Against& a : CompareWithFirst(models)) {
    const double share = 100 * a.times_as_fast / a.ideal;
    ratios.AddRow({a.other->model.name(), absl::StrCat(a.sequences),
                   std::isnan(share) ? "" : absl::StrFormat("%.2f", a.times_as_fast),
                   absl::StrFormat("%.2f", a.ideal),
                   std::isnan(share) ? "" : absl::StrFormat("%.0f %%", share)});
  }
  ratios.Print(out);
}

}  // namespace gatefold::cli

#include "cli/routing_report.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/output.h"

namespace gatefold::cli {
namespace {

// A row per layer, a column per expert, or the busiest few experts where there are many.
void PrintExpertShares(const RoutingShares& shares, std::ostream& out) {
  constexpr int kColumns = 16;
  std::set<uint32_t> layers;
  int n_experts = 0;
  for (const auto& [id, rows] : shares.by_expert) {
    layers.insert(id.first);
    n_experts = std::max(n_experts, id.second + 1);
  }
  std::vector<std::string> headers = {">layer"};
  for (int expert = 0; expert < std::min(n_experts, kColumns); ++expert) {
    headers.push_back(n_experts <= kColumns ? absl::StrCat(">", expert) : ">expert %");
  }
  Table table(headers);
  for (const uint32_t layer : layers) {
    std::vector<std::string> row = {absl::StrCat(layer)};
    if (n_experts <= kColumns) {
      for (int expert = 0; expert < n_experts; ++expert) {
        row.push_back(absl::StrFormat("%.0f", shares.ExpertShare(layer, expert)));
      }
    } else {
      std::vector<std::pair<double, int>> busiest;
      for (int expert = 0; expert < n_experts; ++expert) {
        busiest.emplace_back(-shares.ExpertShare(layer, expert), expert);
      }
      std::sort(busiest.begin(), busiest.end());
      for (int i = 0; i < kColumns; ++i) {
        row.push_back(absl::StrFormat("%d: %.1f", busiest[i].second, -busiest[i].first));
      }
    }
    table.AddRow(row);
  }
  table.Print(out);
}

}  // namespace

void PrintRoutingShares(const RoutingShares& shares, std::ostream& out) {
  if (shares.total == 0) {
    out << "no routing: this model has no gates\n";
    return;
  }
  out << "who answered, prompt and output, of " << shares.total << " (row, expert) pairs:\n";
  Table table({"shard", ">rows", ">percent"});
  for (const auto& [shard, rows] : shares.by_shard) {
    table.AddRow({shard, absl::StrCat(rows), absl::StrFormat("%.1f", shares.ShardShare(shard))});
  }
  table.Print(out);
  out << "percent of each layer's pairs, by expert:\n";
  PrintExpertShares(shares, out);
}

}  // namespace gatefold::cli

#include "cli/top/top_view.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/worker_names.h"

namespace gatefold::cli {
namespace {

using cluster::v1::LatencyHistogram;
using cluster::v1::Worker;

// Observations by bucket. A router that was started again counts from zero.
std::vector<uint64_t> CountsBetween(const LatencyHistogram& before, const LatencyHistogram& after) {
  std::vector<uint64_t> counts(after.counts().begin(), after.counts().end());
  const bool follows =
      std::equal(before.counts().begin(), before.counts().end(), after.counts().begin(),
                 after.counts().end(), [](uint64_t was, uint64_t is) { return was <= is; });
  for (int i = 0; follows && i < before.counts_size(); ++i) counts[i] -= before.counts(i);
  return counts;
}

uint64_t Sum(const std::vector<uint64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), uint64_t{0});
}

std::string Ms(const std::optional<double>& seconds) {
  return seconds.has_value() ? absl::StrFormat("%.1f", 1e3 * *seconds) : "-";
}
std::string Percent(double ratio) { return absl::StrFormat("%.0f %%", 100 * ratio); }

double KvRatio(const TopView& view) {
  return view.n_kv_blocks == 0
             ? 0
             : static_cast<double>(view.n_kv_blocks_used) / static_cast<double>(view.n_kv_blocks);
}

// Of the requests that run, those that do not get on.
std::string HeldUp(const TopView& view) {
  if (view.n_waiting_for_expert == 0) return "";
  return absl::StrFormat(" (%d wait for an expert)", view.n_waiting_for_expert);
}

bool HoldsExperts(const Worker& worker) {
  return worker.n_experts() > 0 && worker.state() != cluster::v1::WORKER_STATE_UNREACHABLE &&
         worker.state() != cluster::v1::WORKER_STATE_MISMATCH;
}

void AddWorkers(const TopSample& before, const TopSample& after, double seconds, TopView* view) {
  std::map<std::string, uint64_t> rows_before;
  for (const Worker& worker : before.cluster.workers()) {
    rows_before[worker.address()] = worker.rows_served();
  }
  double all = 0, most = 0;
  int n_shards = 0;
  for (const Worker& worker : after.cluster.workers()) {
    TopView::WorkerRow& row = view->workers.emplace_back();
    row.worker = worker;
    const uint64_t was = rows_before[worker.address()];
    const uint64_t rows =
        worker.rows_served() >= was ? worker.rows_served() - was : worker.rows_served();
    row.rows_per_second = static_cast<double>(rows) / seconds;
    all += row.rows_per_second;
    if (HoldsExperts(worker)) {
      ++n_shards;
      most = std::max(most, row.rows_per_second);
    }
    view->n_kv_blocks += worker.n_kv_blocks();
    view->n_kv_blocks_used += worker.n_kv_blocks() - worker.n_kv_blocks_free();
  }
  if (all == 0) return;
  for (TopView::WorkerRow& row : view->workers) row.share = row.rows_per_second / all;
  view->imbalance = most * n_shards / all;
}

}  // namespace

std::optional<double> QuantileBetween(const LatencyHistogram& before, const LatencyHistogram& after,
                                      double q) {
  if (after.counts_size() != after.upper_bounds_seconds_size() + 1) return std::nullopt;
  const std::vector<uint64_t> counts = CountsBetween(before, after);
  const double wanted = q * static_cast<double>(Sum(counts));
  if (wanted <= 0) return std::nullopt;
  double below = 0, bound = 0;
  for (int i = 0; i < after.upper_bounds_seconds_size(); ++i) {
    const double low = bound;
    bound = after.upper_bounds_seconds(i);
    const auto count = static_cast<double>(counts[i]);
    if (below + count >= wanted) return low + (bound - low) * (wanted - below) / count;
    below += count;
  }
  return bound;  // above all bounds: at least this
}

TopView CompareSamples(const TopSample& before, const TopSample& after) {
  TopView view;
  view.at = after.at;
  view.model = after.cluster.model();
  const double seconds = std::max(1e-3, absl::ToDoubleSeconds(after.at - before.at));
  const LatencyHistogram& ttft = after.stats.ttft();
  const LatencyHistogram& itl = after.stats.itl();
  // A request's first token is counted by the one, all others by the other.
  const uint64_t tokens =
      Sum(CountsBetween(before.stats.ttft(), ttft)) + Sum(CountsBetween(before.stats.itl(), itl));
  view.tokens_per_second = static_cast<double>(tokens) / seconds;
  view.ttft_p50 = QuantileBetween(before.stats.ttft(), ttft, 0.5);
  view.ttft_p99 = QuantileBetween(before.stats.ttft(), ttft, 0.99);
  view.itl_p50 = QuantileBetween(before.stats.itl(), itl, 0.5);
  view.itl_p99 = QuantileBetween(before.stats.itl(), itl, 0.99);
  view.n_running = after.stats.n_running();
  view.n_waiting = after.stats.n_waiting();
  view.n_waiting_for_expert = after.stats.n_waiting_for_expert();
  view.coverage_ratio = after.cluster.coverage_ratio();
  view.topology_version = after.cluster.topology_version();
  AddWorkers(before, after, seconds, &view);
  return view;
}

void PrintTopTable(const TopView& view, std::ostream& out) {
  out << absl::StrFormat("%s  model %s  experts covered %s  topology %d\n",
                         absl::FormatTime("%H:%M:%S", view.at, absl::LocalTimeZone()), view.model,
                         Percent(view.coverage_ratio), view.topology_version)
      << absl::StrFormat("tokens/s %.1f   running %d%s   waiting %d   KV %s of %d blocks\n",
                         view.tokens_per_second, view.n_running, HeldUp(view), view.n_waiting,
                         Percent(KvRatio(view)), view.n_kv_blocks)
      << absl::StrFormat("TTFT p50 %s ms, p99 %s ms   ITL p50 %s ms, p99 %s ms\n",
                         Ms(view.ttft_p50), Ms(view.ttft_p99), Ms(view.itl_p50), Ms(view.itl_p99))
      << absl::StrFormat("imbalance %.2f (max over mean of rows/s over shards)\n\n",
                         view.imbalance);
  Table table({"name", "kind", "state", ">busy", ">rows/s", ">share", ">experts", ">sequences",
               ">KV used"});
  for (const TopView::WorkerRow& row : view.workers) {
    const Worker& worker = row.worker;
    const bool has_experts = worker.n_experts() > 0, has_kv = worker.n_kv_blocks() > 0;
    const double kv = has_kv ? 1 - static_cast<double>(worker.n_kv_blocks_free()) /
                                       static_cast<double>(worker.n_kv_blocks())
                             : 0;
    table.AddRow({worker.name(), KindName(worker), StateName(worker), Percent(worker.busy_ratio()),
                  has_experts ? absl::StrFormat("%.0f", row.rows_per_second) : "",
                  has_experts ? Percent(row.share) : "",
                  has_experts ? absl::StrCat(worker.n_experts()) : "",
                  has_kv ? absl::StrCat(worker.n_sequences()) : "", has_kv ? Percent(kv) : ""});
  }
  table.Print(out);
}

void PrintTopLine(const TopView& view, std::ostream& out) {
  out << absl::StrFormat(
      "time=%s tokens_per_second=%.1f ttft_p50_ms=%s ttft_p99_ms=%s itl_p50_ms=%s itl_p99_ms=%s "
      "running=%d waiting=%d waiting_for_expert=%d kv_usage=%.2f coverage=%.3f imbalance=%.2f",
      absl::FormatTime("%H:%M:%S", view.at, absl::LocalTimeZone()), view.tokens_per_second,
      Ms(view.ttft_p50), Ms(view.ttft_p99), Ms(view.itl_p50), Ms(view.itl_p99), view.n_running,
      view.n_waiting, view.n_waiting_for_expert, KvRatio(view), view.coverage_ratio,
      view.imbalance);
  for (const TopView::WorkerRow& row : view.workers) {
    out << absl::StrFormat(" busy{%s}=%.2f", row.worker.name(), row.worker.busy_ratio());
  }
  out << "\n";
}

Json TopJson(const TopView& view) {
  const auto number = [](const std::optional<double>& seconds) {
    return seconds.has_value() ? Json(1e3 * *seconds) : Json();
  };
  Json workers = Json::array();
  for (const TopView::WorkerRow& row : view.workers) {
    workers.push_back({{"name", row.worker.name()},
                       {"kind", KindName(row.worker)},
                       {"state", StateName(row.worker)},
                       {"busy_ratio", row.worker.busy_ratio()},
                       {"rows_per_second", row.rows_per_second},
                       {"share", row.share},
                       {"n_experts", row.worker.n_experts()},
                       {"n_sequences", row.worker.n_sequences()}});
  }
  return {{"time", absl::FormatTime(absl::RFC3339_sec, view.at, absl::UTCTimeZone())},
          {"tokens_per_second", view.tokens_per_second},
          {"ttft_ms", {{"p50", number(view.ttft_p50)}, {"p99", number(view.ttft_p99)}}},
          {"itl_ms", {{"p50", number(view.itl_p50)}, {"p99", number(view.itl_p99)}}},
          {"requests_running", view.n_running},
          {"requests_waiting", view.n_waiting},
          {"requests_waiting_for_expert", view.n_waiting_for_expert},
          {"kv_usage_ratio", KvRatio(view)},
          {"coverage_ratio", view.coverage_ratio},
          {"topology_version", view.topology_version},
          {"imbalance", view.imbalance},
          {"workers", std::move(workers)}};
}

}  // namespace gatefold::cli

// What one hop of ours costs beside raw sockets, measured side by side in short bursts, so that a
// machine that slows down slows both. Prints a table of ratios and the goals for them.
//
//   transport_bench [--json] [--only=SUBSTRING] [--rounds=N]
//
// Two cores are enough; rows that spin want both free. Exit code 1: a goal was missed.

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "bench/transport/child.h"
#include "bench/transport/measured_peer.h"
#include "gatefold/base/command_line.h"
#include "gatefold/base/status_macros.h"

ABSL_FLAG(bool, json, false, "print one JSON object instead of the table");
ABSL_FLAG(std::string, only, "", "measure only rows whose name contains this");
ABSL_FLAG(int, rounds, 15, "bursts per process");
ABSL_FLAG(std::string, role, "", "internal: what a measured process is");
ABSL_FLAG(std::string, addresses, "", "internal");
ABSL_FLAG(std::string, wait, "block", "internal");
ABSL_FLAG(int64_t, bytes, 8192, "internal");
ABSL_FLAG(bool, bulk, false, "internal");
ABSL_FLAG(bool, worker, false, "internal");

namespace gatefold::bench {
namespace {

// One kind of peer: a pair of processes (or one client and several servers).
struct Side {
  bool rpc = false;
  const char* wait = "block";
  bool bulk = false;
  bool worker = false;
};

enum class Cores { kTwo, kOne };  // client and servers apart, or all on one

// Ours against raw, and how much dearer it may be; no goal: reported only.
struct Row {
  const char* name;
  bool unix_socket;
  size_t bytes;
  Cores cores;
  int fan_out;
  Side ours;
  Side raw;
  double goal_ratio = 0;
  double goal_us_per_stream = 0;
};

constexpr size_t kKiB = 1024;
constexpr size_t kMiB = 1024 * kKiB;
constexpr Side kRaw = {false, "block"};
constexpr Side kRawSpin = {false, "spin"};
constexpr Side kOurs = {true, "block"};
constexpr Side kOursSpin = {true, "spin"};
constexpr Side kOursHybrid = {true, "hybrid:50us"};
constexpr Side kOursBulk = {true, "block", true};
constexpr Side kOursWorker = {true, "block", false, true};

const Row kRows[] = {
    {"tcp 8K spin / raw block", false, 8 * kKiB, Cores::kTwo, 1, kOursSpin, kRaw, 0.45},
    {"tcp 8K spin / raw spin", false, 8 * kKiB, Cores::kTwo, 1, kOursSpin, kRawSpin, 2.0},
    {"tcp 8K hybrid / raw block", false, 8 * kKiB, Cores::kTwo, 1, kOursHybrid, kRaw},
    {"tcp 8K block", false, 8 * kKiB, Cores::kTwo, 1, kOurs, kRaw, 1.5},
    {"tcp 8K block, worker", false, 8 * kKiB, Cores::kTwo, 1, kOursWorker, kRaw},
    {"unix 8K block", true, 8 * kKiB, Cores::kTwo, 1, kOurs, kRaw, 1.6},
    {"tcp 8K block, one core", false, 8 * kKiB, Cores::kOne, 1, kOurs, kRaw, 3},
    {"unix 8K block, one core", true, 8 * kKiB, Cores::kOne, 1, kOurs, kRaw, 3},
    {"tcp 64K spin / raw spin", false, 64 * kKiB, Cores::kTwo, 1, kOursSpin, kRawSpin, 1.7},
    {"tcp 64K block", false, 64 * kKiB, Cores::kTwo, 1, kOurs, kRaw, 1.4},
    {"unix 64K block", true, 64 * kKiB, Cores::kTwo, 1, kOurs, kRaw},
    {"tcp 1M block, bulk", false, kMiB, Cores::kTwo, 1, kOursBulk, kRaw, 1.6},
    {"tcp 1M block, decode channel", false, kMiB, Cores::kTwo, 1, kOurs, kRaw},
    {"tcp 4M block, bulk", false, 4 * kMiB, Cores::kTwo, 1, kOursBulk, kRaw, 1.5},
    {"unix 4M block, bulk", true, 4 * kMiB, Cores::kTwo, 1, kOursBulk, kRaw},
    {"tcp 8K block, fan-out 4", false, 8 * kKiB, Cores::kTwo, 4, kOurs, kRaw, 0, 45},
    {"unix 8K block, fan-out 4", true, 8 * kKiB, Cores::kTwo, 4, kOurs, kRaw, 0, 45},
};

struct Pair {
  std::vector<Child> servers;
  std::unique_ptr<Child> client;
  std::vector<double> burst_p50;

  void Continue() {
    for (Child& server : servers) server.Continue();
    client->Continue();
  }
  void Stop() {
    client->Stop();
    for (Child& server : servers) server.Stop();
  }
};

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  sched_getaffinity(0, sizeof set, &set);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

std::vector<std::string> FlagsOf(const Row& row, const Side& side, bool client,
                                 const std::vector<std::string>& addresses) {
  return {absl::StrCat("--role=", side.rpc ? "rpc" : "raw", client ? "-client" : "-server"),
          absl::StrCat("--addresses=", absl::StrJoin(addresses, ",")),
          absl::StrCat("--wait=", side.wait),
          absl::StrCat("--bytes=", row.bytes),
          absl::StrCat("--bulk=", side.bulk),
          absl::StrCat("--worker=", side.worker)};
}

absl::StatusOr<Pair> StartPair(const Row& row, const Side& side) {
  static int n_sockets = 0;
  const std::vector<int> cpus = AllowedCpus();
  const std::vector<int> client_cpus = {cpus.front()};
  std::vector<int> server_cpus = {cpus.back()};
  if (row.cores == Cores::kOne) server_cpus = client_cpus;
  Pair pair;
  std::vector<std::string> addresses;
  for (int i = 0; i < row.fan_out; ++i) {
    const std::string address = row.unix_socket ? absl::StrCat("unix:/tmp/gatefold-bench-",
                                                               getpid(), "-", n_sockets++, ".sock")
                                                : "127.0.0.1:0";
    GF_ASSIGN_OR_RETURN(Child server,
                        Child::Start(FlagsOf(row, side, false, {address}), server_cpus));
    GF_ASSIGN_OR_RETURN(std::string bound, server.ReadLine());
    addresses.push_back(std::move(bound));
    pair.servers.push_back(std::move(server));
  }
  GF_ASSIGN_OR_RETURN(Child client, Child::Start(FlagsOf(row, side, true, addresses), client_cpus));
  pair.client = std::make_unique<Child>(std::move(client));
  GF_RETURN_IF_ERROR(pair.client->Burst(20000).status());  // it has connected then
  pair.Stop();
  return pair;
}

absl::Status MeasureOnce(const Row& row, Pair* pair) {
  pair->Continue();
  const uint32_t burst_us = row.bytes >= kMiB ? 80000 : 40000;
  GF_ASSIGN_OR_RETURN(std::vector<float> times, pair->client->Burst(burst_us));
  pair->Stop();
  if (times.empty()) return absl::InternalError("a burst without a round trip");
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  pair->burst_p50.push_back(times[times.size() / 2]);
  return absl::OkStatus();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

struct Result {
  double raw_us = 0;
  double ours_us = 0;
  double ratio = 0;  // median of the rounds' ratios: the two bursts of a round lie side by side
  bool ok = true;
};

absl::StatusOr<Result> Measure(const Row& row) {
  GF_ASSIGN_OR_RETURN(Pair raw, StartPair(row, row.raw));
  GF_ASSIGN_OR_RETURN(Pair ours, StartPair(row, row.ours));
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    GF_RETURN_IF_ERROR(MeasureOnce(row, &raw));
    GF_RETURN_IF_ERROR(MeasureOnce(row, &ours));
  }
  std::vector<double> ratios;
  for (size_t i = 0; i < raw.burst_p50.size(); ++i) {
    ratios.push_back(ours.burst_p50[i] / raw.burst_p50[i]);
  }
  Result result{Median(raw.burst_p50), Median(ours.burst_p50), Median(ratios)};
  if (row.goal_ratio > 0) result.ok = result.ratio <= row.goal_ratio;
  if (row.goal_us_per_stream > 0) {
    result.ok = result.ours_us / row.fan_out <= row.goal_us_per_stream;
  }
  return result;
}

std::string GoalOf(const Row& row) {
  if (row.goal_ratio > 0) return absl::StrFormat("<= %.2f", row.goal_ratio);
  if (row.goal_us_per_stream > 0) {
    return absl::StrFormat("<= %.0f us/stream", row.goal_us_per_stream);
  }
  return "-";
}

void PrintRow(const Row& row, const Result& result) {
  const char* ok = GoalOf(row) == "-" ? "" : result.ok ? "ok" : "MISSED";
  std::printf("%-30s %9.1f %9.1f %7.2f  %-16s %s\n", row.name, result.raw_us, result.ours_us,
              result.ratio, GoalOf(row).c_str(), ok);
  std::fflush(stdout);
}

std::string JsonOf(const Row& row, const Result& result) {
  return absl::StrFormat(
      R"({"case":"%s","raw_p50_us":%.1f,"ours_p50_us":%.1f,"ratio":%.3f,"goal":"%s","ok":%s})",
      row.name, result.raw_us, result.ours_us, result.ratio, GoalOf(row),
      result.ok ? "true" : "false");
}

absl::StatusOr<bool> MeasureAll() {
  const bool json = absl::GetFlag(FLAGS_json);
  if (!json) {
    std::printf("%-30s %9s %9s %7s  %-16s\n", "case", "raw us", "ours us", "ratio", "goal");
  }
  bool all_ok = true;
  std::vector<std::string> rows;
  for (const Row& row : kRows) {
    if (!absl::StrContains(row.name, absl::GetFlag(FLAGS_only))) continue;
    GF_ASSIGN_OR_RETURN(const Result result, Measure(row));
    all_ok &= result.ok;
    if (json) {
      rows.push_back(JsonOf(row, result));
    } else {
      PrintRow(row, result);
    }
  }
  if (json) std::printf("{\"rows\":[%s]}\n", absl::StrJoin(rows, ",").c_str());
  return all_ok;
}

absl::Status RunRole(const std::string& role) {
  PeerOptions options;
  options.addresses = absl::StrSplit(absl::GetFlag(FLAGS_addresses), ',');
  GF_ASSIGN_OR_RETURN(options.wait, ParseWaitPolicy(absl::GetFlag(FLAGS_wait)));
  options.bytes = absl::GetFlag(FLAGS_bytes);
  options.bulk = absl::GetFlag(FLAGS_bulk);
  options.worker = absl::GetFlag(FLAGS_worker);
  if (role == "raw-server") return RunRawServer(options);
  if (role == "raw-client") return RunRawClient(options);
  if (role == "rpc-server") return RunRpcServer(options);
  if (role == "rpc-client") return RunRpcClient(options);
  return absl::InvalidArgumentError(absl::StrCat("--role=", role));
}

int Main() {
  const std::string role = absl::GetFlag(FLAGS_role);
  absl::Status status;
  bool ok = true;
  if (role.empty()) {
    const absl::StatusOr<bool> measured = MeasureAll();
    status = measured.status();
    ok = measured.ok() && *measured;
  } else {
    status = RunRole(role);
  }
  if (!status.ok()) std::fprintf(stderr, "transport_bench: %s\n", status.ToString().c_str());
  return status.ok() && ok ? 0 : 1;
}

}  // namespace
}  // namespace gatefold::bench

int main(int argc, char** argv) {
  gatefold::ParseFlags(argc, argv);
  return gatefold::bench::Main();
}

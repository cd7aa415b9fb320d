// Four times the load that a cluster can bear: what it admits keeps its pace, the rest is refused
// at once, and memory does not grow.
//
// A few seconds by default, with bounds that hold on a machine that has other things to do: they
// find a collapse. With GATEFOLD_LONG_TESTS=1 ten minutes of overload and the promised bounds, for
// a machine that has nothing else to do.

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "tests/integration/client.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr int kRunning = 8;
constexpr int kWaiting = 8;
constexpr int kPrompt = 32;
constexpr int kOutput = 256;

struct Bounds {
  absl::Duration saturation;
  // Before memory is looked at: the router keeps traces of its last 1024 generations, and then as
  // many.
  absl::Duration warm_up;
  absl::Duration overload;
  double throughput;  // of that at saturation
  absl::Duration refusal;
  double growth;  // of resident memory
};

Bounds ChosenBounds() {
  const char* chosen = std::getenv("GATEFOLD_LONG_TESTS");
  if (chosen != nullptr && std::string(chosen) == "1") {
    return {
        absl::Seconds(30), absl::Seconds(90), absl::Minutes(10), 0.9, absl::Milliseconds(50), 0.02};
  }
  return {absl::Seconds(3), absl::Seconds(1), absl::Seconds(5), 0.3, absl::Seconds(1), 0.25};
}

double ResidentBytes(Process* process) {
  std::ifstream status(absl::StrCat("/proc/", process->pid(), "/status"));
  std::string line;
  while (std::getline(status, line)) {
    if (!absl::StartsWith(line, "VmRSS:")) continue;
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    double kib = 0;
    if (words.size() > 1 && absl::SimpleAtod(words[1], &kib)) return 1024 * kib;
  }
  ADD_FAILURE() << "process " << process->pid() << " has no resident memory";
  return 0;
}

// Requests that are sent without waiting for the others' answers.
class Load {
 public:
  explicit Load(const std::shared_ptr<grpc::Channel>& channel) : client_(channel) {}
  ~Load() { AwaitFewerThan(1); }

  struct Outcomes {
    int n_ok = 0;
    int n_refused = 0;
    int n_other = 0;
    std::string other;                     // one of them
    std::vector<absl::Duration> refusals;  // how long each took
  };

  void Send() {
    auto* call = new Call;
    std::uniform_int_distribution<int> token(0, 511);
    auto* ids = call->request.mutable_prompt()->mutable_token_ids();
    for (int i = 0; i < kPrompt; ++i) ids->add_ids(token(random_));
    call->request.mutable_config()->set_max_output_tokens(kOutput);
    call->request.mutable_config()->set_temperature(0);
    call->request.mutable_config()->set_ignore_eos(true);
    call->sent = absl::Now();
    {
      absl::MutexLock lock(&mu_);
      ++n_open_;
    }
    client_.stub()->async()->GenerateText(
        &call->context, &call->request, &call->response, [this, call](const grpc::Status& status) {
          const absl::Duration took = absl::Now() - call->sent;
          delete call;
          Note(status, took);  // last: nobody waits for this call any more
        });
  }

  void AwaitFewerThan(int n) {
    const auto fewer = [this, n]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return n_open_ < n; };
    absl::MutexLock lock(&mu_, absl::Condition(&fewer));
  }

  Outcomes TakeOutcomes() {
    absl::MutexLock lock(&mu_);
    return std::exchange(outcomes_, {});
  }

 private:
  struct Call {
    grpc::ClientContext context;
    inference::v1::GenerateTextRequest request;
    inference::v1::GenerateTextResponse response;
    absl::Time sent;
  };

  void Note(const grpc::Status& status, absl::Duration took) {
    absl::MutexLock lock(&mu_);
    --n_open_;
    if (status.ok()) {
      ++outcomes_.n_ok;
    } else if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
      ++outcomes_.n_refused;
      outcomes_.refusals.push_back(took);
    } else {
      ++outcomes_.n_other;
      outcomes_.other = status.error_message();
    }
  }

  Client client_;
  std::mt19937 random_{7};
  absl::Mutex mu_;
  int n_open_ ABSL_GUARDED_BY(mu_) = 0;
  Outcomes outcomes_ ABSL_GUARDED_BY(mu_);
};

TEST(OverloadTest, AdmittedRequestsKeepTheirPaceAndTheRestIsRefusedAtOnce) {
  const Bounds bounds = ChosenBounds();
  ShapeOptions options;
  options.kind = ShapeOptions::Kind::kCluster;
  options.experts = {"all"};
  options.kv_memory = "2MiB";  // 128 blocks: they run out, too
  options.router_flags = {absl::StrCat("--max-running=", kRunning),
                          absl::StrCat("--max-waiting=", kWaiting)};
  auto shape = Shape::Start("tests/golden/mixtral/bf16", options);
  ASSERT_TRUE(shape.ok()) << shape.status();
  Load load((*shape)->channel());

  // More at a time than may run and fewer than may wait, too: nothing is idle, nothing refused.
  const auto saturate = [&](absl::Duration time) {
    const absl::Time start = absl::Now();
    while (absl::Now() < start + time) {
      load.AwaitFewerThan(kRunning + kWaiting / 2);
      load.Send();
    }
    const double n_ok = load.TakeOutcomes().n_ok;
    load.AwaitFewerThan(1);
    const Load::Outcomes rest = load.TakeOutcomes();
    EXPECT_EQ(rest.n_refused + rest.n_other, 0) << rest.other;
    return n_ok / absl::ToDoubleSeconds(time);
  };
  saturate(absl::Seconds(1));
  const double sustainable = saturate(bounds.saturation);  // requests per second

  // Four times as many come, whatever becomes of those before.
  const auto overload = [&](absl::Duration time) {
    const absl::Duration between = absl::Seconds(1) / (4 * sustainable);
    const absl::Time start = absl::Now();
    for (int64_t i = 0; i * between < time; ++i) {
      absl::SleepFor(start + i * between - absl::Now());
      load.Send();
    }
    return load.TakeOutcomes();
  };
  overload(bounds.warm_up);
  std::vector<Process*> processes = {(*shape)->router(), (*shape)->attention(),
                                     (*shape)->expert(0)};
  std::vector<double> before;
  for (Process* process : processes) before.push_back(ResidentBytes(process));
  Load::Outcomes outcomes = overload(bounds.overload);
  for (size_t i = 0; i < processes.size(); ++i) {
    EXPECT_LT(ResidentBytes(processes[i]), before[i] * (1 + bounds.growth)) << "process " << i;
  }

  // Twice, for a machine may have other things to do meanwhile.
  const double still_sustainable = std::min(sustainable, saturate(bounds.saturation));
  const double admitted = outcomes.n_ok / absl::ToDoubleSeconds(bounds.overload);
  RecordProperty("sustainable_per_second", absl::StrCat(sustainable));
  RecordProperty("admitted_per_second", absl::StrCat(admitted));
  EXPECT_EQ(outcomes.n_other, 0) << outcomes.other;
  EXPECT_GT(outcomes.n_refused, 0);
  EXPECT_GT(admitted, bounds.throughput * still_sustainable);
  ASSERT_FALSE(outcomes.refusals.empty());
  std::sort(outcomes.refusals.begin(), outcomes.refusals.end());
  const absl::Duration p99 = outcomes.refusals[outcomes.refusals.size() * 99 / 100];
  RecordProperty("refusal_p99", absl::FormatDuration(p99));
  EXPECT_LT(p99, bounds.refusal);
  std::printf("sustainable %.0f/s and %.0f/s, admitted %.0f/s of %.0f/s, refused in %s (p99)\n",
              sustainable, still_sustainable, admitted, 4 * sustainable,
              absl::FormatDuration(p99).c_str());
}

}  // namespace
}  // namespace gatefold

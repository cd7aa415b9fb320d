// Streams for deploy/drill.sh and tests/kubernetes: keeps some generations running at a cluster
// while something is killed, resumes at another router where one goes away, and tells what a user
// would have noticed:
//   drill_streams --routers=A,B --streams=8 --tokens=100 --expect=FILE
// Every stream generates at least once. Prints `running` once every stream has a token, and one
// line at the end. SIGTERM ends --seconds: generations that run are finished, none is started.

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"

ABSL_FLAG(std::string, routers, "", "addresses, with commas");
ABSL_FLAG(int, streams, 8, "generations at the same time");
ABSL_FLAG(int, tokens, 100, "of each generation");
ABSL_FLAG(double, seconds, 0, "start generations again for so long after all have a token");
ABSL_FLAG(std::string, write, "", "file for the tokens of every stream");
ABSL_FLAG(std::string, expect, "", "file that --write made: what the tokens must be");

namespace gatefold {
namespace {

using Tokens = std::vector<int32_t>;
using inference::v1::InferenceService;

// How long a stream tries to find a router.
constexpr absl::Duration kPatience = absl::Seconds(60);

struct Seen {
  absl::Duration longest_wait;  // for a token
  int n_generations = 0, n_tokens = 0, n_lost = 0, n_different = 0, n_failed = 0, n_resumed = 0;

  void Add(const Seen& other) {
    longest_wait = std::max(longest_wait, other.longest_wait);
    n_generations += other.n_generations;
    n_tokens += other.n_tokens;
    n_lost += other.n_lost;
    n_different += other.n_different;
    n_failed += other.n_failed;
    n_resumed += other.n_resumed;
  }
};

// One user, who asks for the same again and again.
class Stream {
 public:
  Stream(int index, const std::vector<std::unique_ptr<InferenceService::Stub>>* routers)
      : index_(index), routers_(routers), router_(index) {}

  Tokens expected;  // empty: not known
  Seen seen;
  Tokens last;  // of the last generation

  // Once at least, and again until `stop`. `on_first` is called after the first token.
  void Run(std::function<void()> on_first, const absl::Notification& stop) {
    on_first_ = std::move(on_first);
    do {
      Generate();
    } while (!stop.HasBeenNotified());
  }

 private:
  void Generate() {
    const int n_wanted = absl::GetFlag(FLAGS_tokens);
    Tokens tokens;
    waiting_since_ = absl::Now();
    const absl::Time patience = absl::Now() + kPatience;
    grpc::Status status;
    do {
      status = Attempt(&tokens);
      // Cancelled: by a router that went in the moment of the call.
      if (status.error_code() != grpc::StatusCode::UNAVAILABLE &&
          status.error_code() != grpc::StatusCode::CANCELLED) {
        break;
      }
      ++router_;
      ++seen.n_resumed;
      absl::SleepFor(absl::Milliseconds(20));
    } while (static_cast<int>(tokens.size()) < n_wanted && absl::Now() < patience);
    const bool complete = static_cast<int>(tokens.size()) >= n_wanted;
    ++seen.n_generations;
    seen.n_failed += !complete;
    if (!complete) std::fprintf(stderr, "stream %d: %s\n", index_, status.error_message().c_str());
    seen.n_tokens += static_cast<int>(tokens.size());
    seen.n_lost += std::max(0, n_wanted - static_cast<int>(tokens.size()));
    seen.n_different += !expected.empty() && tokens != expected;
    last = std::move(tokens);
    // So that on_first is called even if no token ever came.
    NoteFirst();
  }

  grpc::Status Attempt(Tokens* tokens) {
    inference::v1::StreamGenerateTextRequest request;
    inference::v1::GenerateTextRequest* generate = request.mutable_request();
    for (const int token : {1, 5 + index_, 9, 20}) {
      generate->mutable_prompt()->mutable_token_ids()->add_ids(token);
    }
    generate->mutable_config()->set_max_output_tokens(absl::GetFlag(FLAGS_tokens));
    generate->mutable_config()->set_temperature(1);
    generate->mutable_config()->set_seed(static_cast<uint64_t>(index_));
    generate->mutable_config()->set_ignore_eos(true);
    generate->mutable_output()->set_token_ids(true);
    request.mutable_resume_token_ids()->Assign(tokens->begin(), tokens->end());
    grpc::ClientContext context;
    const auto& stub = (*routers_)[router_ % routers_->size()];
    const auto reader = stub->StreamGenerateText(&context, request);
    inference::v1::StreamGenerateTextResponse event;
    while (reader->Read(&event)) {
      if (event.delta().token_ids_size() == 0) continue;
      for (const int32_t id : event.delta().token_ids()) tokens->push_back(id);
      const absl::Time now = absl::Now();
      seen.longest_wait = std::max(seen.longest_wait, now - waiting_since_);
      waiting_since_ = now;
      NoteFirst();
    }
    return reader->Finish();
  }

  void NoteFirst() {
    if (on_first_) on_first_();
    on_first_ = nullptr;
  }

  const int index_;
  const std::vector<std::unique_ptr<InferenceService::Stub>>* const routers_;
  size_t router_;
  std::function<void()> on_first_;
  absl::Time waiting_since_;
};

// A line of numbers per stream.
std::vector<Tokens> ReadTokens(const std::string& path) {
  std::vector<Tokens> all;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream numbers(line);
    Tokens& tokens = all.emplace_back();
    for (int32_t token = 0; numbers >> token;) tokens.push_back(token);
  }
  return all;
}

int Main() {
  // Blocked here, before there are threads, so in all of them: it is waited for below.
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, nullptr);

  std::vector<std::unique_ptr<InferenceService::Stub>> routers;
  for (const auto& address : absl::StrSplit(absl::GetFlag(FLAGS_routers), ',', absl::SkipEmpty())) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    routers.push_back(InferenceService::NewStub(grpc::CreateCustomChannel(
        std::string(address), grpc::InsecureChannelCredentials(), arguments)));
  }
  const int n_streams = absl::GetFlag(FLAGS_streams);
  const std::string expect = absl::GetFlag(FLAGS_expect);
  const std::vector<Tokens> expected = ReadTokens(expect);
  if (routers.empty() || n_streams < 1 || n_streams > 1024 || absl::GetFlag(FLAGS_tokens) < 1 ||
      (!expect.empty() && expected.size() != static_cast<size_t>(n_streams))) {
    std::fprintf(stderr,
                 "drill_streams: --routers is empty, --streams or --tokens is out of "
                 "range, or --expect holds another number of streams; see --help\n");
    return 2;
  }
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < n_streams; ++i) {
    streams.push_back(std::make_unique<Stream>(i, &routers));
    if (!expect.empty()) streams.back()->expected = expected[i];
  }
  absl::BlockingCounter without_token(n_streams);
  absl::Notification stop;
  std::vector<std::thread> threads;
  for (const auto& stream : streams) {
    threads.emplace_back(
        [&, s = stream.get()] { s->Run([&] { without_token.DecrementCount(); }, stop); });
  }
  without_token.Wait();
  std::printf("running\n");
  std::fflush(stdout);
  const timespec wait = absl::ToTimespec(absl::Seconds(absl::GetFlag(FLAGS_seconds)));
  sigtimedwait(&term, nullptr, &wait);
  stop.Notify();
  Seen all;
  std::ofstream write(absl::GetFlag(FLAGS_write));
  for (int i = 0; i < n_streams; ++i) {
    threads[i].join();
    all.Add(streams[i]->seen);
    for (const int32_t token : streams[i]->last) write << token << ' ';
    write << '\n';
  }
  std::printf("stall_ms=%d generations=%d tokens=%d lost=%d equal=%s failed=%d resumed=%d\n",
              static_cast<int>(absl::ToInt64Milliseconds(all.longest_wait)), all.n_generations,
              all.n_tokens, all.n_lost,
              expect.empty()         ? "-"
              : all.n_different == 0 ? "yes"
                                     : "no",
              all.n_failed, all.n_resumed);
  return all.n_failed > 0 || all.n_different > 0 ? 1 : 0;
}

}  // namespace
}  // namespace gatefold

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("keeps generations running while something is killed");
  absl::ParseCommandLine(argc, argv);
  return gatefold::Main();
}

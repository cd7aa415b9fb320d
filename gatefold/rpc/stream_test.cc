// Streams between a client and a server of ours, over sockets of this machine.

#include <grpcpp/server_builder.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/internal/v1/expert.grpc.pb.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/stream_client.h"
#include "gatefold/rpc/stream_server.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using internal::v1::ExpertService;
using internal::v1::ExpertServiceRunRequest;
using internal::v1::ExpertServiceRunResponse;
using internal::v1::REFUSAL_REASON_BUSY;
using ::testing::ElementsAre;

constexpr char kService[] = "gatefold.internal.v1.ExpertService";
constexpr char kRun[] = "/gatefold.internal.v1.ExpertService/Run";

// Far beyond what anything here takes; a test that reaches it has failed.
absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

// Answers each frame with its key and payload. The layer of the key says how: see Layer.
enum Layer : uint32_t { kSmall = 0, kLarge = 1, kGated = 2, kFail = 3, kSlow = 4 };

class EchoHandler final : public StreamHandler {
 public:
  absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>& call) override {
    if (call->Metadata("refuse") == "yes") return FeatureUnsupported("this stream");
    return std::make_unique<Session>(this);
  }
  grpc::ByteBuffer Refuse(const grpc::ByteBuffer& frame) override {
    {
      absl::MutexLock lock(&mu);
      ++n_refused;
    }
    ExpertServiceRunResponse response;
    *response.mutable_key() = Key(frame);
    response.mutable_refusal()->set_reason(REFUSAL_REASON_BUSY);
    return WriteMessage(response);
  }

  static internal::v1::CallKey Key(const grpc::ByteBuffer& frame) {
    ExpertServiceRunRequest request;
    FramePayload payload;
    EXPECT_TRUE(ReadFrame(frame, &request, &payload).ok());
    return request.key();
  }

  void WaitForSessions(int n) {
    absl::MutexLock lock(&mu);
    const auto done = [&] { return n_sessions == n; };
    EXPECT_TRUE(mu.AwaitWithDeadline(absl::Condition(&done), Soon())) << n_sessions;
  }
  // Lets `set` send what it has until `n` frames stand at the gate, or are refused.
  void WaitForGated(int n, StreamSet* set) { PumpUntil(&n_gated, n, set); }
  void WaitForRefused(int n, StreamSet* set) { PumpUntil(&n_refused, n, set); }
  void WaitForSessions(int n, StreamSet* set) { PumpUntil(&n_sessions, n, set); }
  int FramesOn(const std::string& thread) {
    absl::MutexLock lock(&mu);
    return frames_by_thread[thread];
  }
  void OpenGate() {
    absl::MutexLock lock(&mu);
    gate_open = true;
  }

  absl::Mutex mu;
  int n_sessions = 0;
  int n_gated = 0;
  int n_refused = 0;
  bool gate_open = false;
  std::map<std::string, int> frames_by_thread;

 private:
  void PumpUntil(const int* count, int n, StreamSet* set) {
    const absl::Time deadline = Soon();
    for (;;) {
      StreamEvent event;
      EXPECT_FALSE(set->WaitAny(absl::Now() + absl::Milliseconds(1), &event));
      absl::MutexLock lock(&mu);
      if (*count >= n) return;
      ASSERT_LT(absl::Now(), deadline);
    }
  }

  class Session final : public StreamSession {
   public:
    explicit Session(EchoHandler* handler) : handler_(handler) {
      absl::MutexLock lock(&handler_->mu);
      ++handler_->n_sessions;
    }
    ~Session() override {
      absl::MutexLock lock(&handler_->mu);
      --handler_->n_sessions;
    }
    bool IsSmall(const grpc::ByteBuffer& frame) const override {
      return Key(frame).layer() == kSmall || Key(frame).layer() == kSlow;
    }
    absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time) override {
      ExpertServiceRunRequest request;
      FramePayload payload;
      GF_RETURN_IF_ERROR(ReadFrame(frame, &request, &payload));
      {
        absl::MutexLock lock(&handler_->mu);
        char name[16];
        pthread_getname_np(pthread_self(), name, sizeof name);
        ++handler_->frames_by_thread[name];
        if (request.key().layer() == kGated) {
          ++handler_->n_gated;
          handler_->mu.Await(absl::Condition(&handler_->gate_open));
        }
      }
      if (request.key().layer() == kSlow) absl::SleepFor(absl::Milliseconds(5));
      if (request.key().layer() == kFail) return CheckpointMismatch("model", "a", "b");
      ExpertServiceRunResponse response;
      *response.mutable_key() = request.key();
      PayloadBuffer answer(payload.size_bytes());
      payload.CopyTo(answer.data());
      return WriteFrame(response, answer);
    }

   private:
    EchoHandler* const handler_;
  };
};

struct Server {
  explicit Server(const StreamOptions& options = {}, const std::string& address = "") {
    static std::atomic<int> n{0};
    ServerOptions server_options;
    server_options.addresses = {
        address.empty() ? absl::StrCat("unix:", ::testing::TempDir(), "/gf", getpid(), "-", n++)
                        : address};
    rpc = std::make_unique<RpcServer>(server_options);
    AddStream(rpc.get(), kService, "Run", &handler, options);
    const absl::Status started = rpc->Start();
    EXPECT_TRUE(started.ok()) << started;
  }
  std::shared_ptr<grpc::Channel> Connect(ChannelKind kind = ChannelKind::kDecode) {
    return *MakeChannel(rpc->address(), kind, ChannelOptions());
  }

  EchoHandler handler;
  std::unique_ptr<RpcServer> rpc;
};

grpc::ByteBuffer Frame(uint64_t step, Layer layer, size_t bytes = 100) {
  ExpertServiceRunRequest request;
  request.mutable_key()->set_step(step);
  request.mutable_key()->set_layer(layer);
  PayloadBuffer payload(bytes);
  std::memset(payload.data(), static_cast<int>(step), bytes);
  return WriteFrame(request, payload);
}

ExpertServiceRunResponse Answer(const StreamEvent& event, size_t bytes = 100) {
  ExpertServiceRunResponse response;
  FramePayload payload;
  const absl::Status read = ReadFrame(event.answer, &response, &payload);
  EXPECT_TRUE(read.ok()) << read;
  if (response.has_refusal()) return response;
  std::string content(payload.size_bytes(), '\0');
  payload.CopyTo(content.data());
  EXPECT_EQ(content, std::string(bytes, static_cast<char>(response.key().step())));
  return response;
}

// The next event, which must be an answer.
uint64_t NextStep(StreamSet* set, size_t bytes = 100) {
  StreamEvent event;
  EXPECT_TRUE(set->WaitAny(Soon(), &event));
  EXPECT_EQ(event.kind, StreamEvent::Kind::kAnswer) << event.status;
  const uint64_t step = Answer(event, bytes).key().step();
  EXPECT_EQ(event.token, step);
  return step;
}

StreamEvent NextBroken(StreamSet* set) {
  StreamEvent event;
  do {
    EXPECT_TRUE(set->WaitAny(Soon(), &event));
  } while (event.kind == StreamEvent::Kind::kAnswer);
  EXPECT_EQ(event.kind, StreamEvent::Kind::kBroken);
  return event;
}

class EveryAddress : public ::testing::TestWithParam<const char*> {};

TEST_P(EveryAddress, AnswersFramesOfAllSizes) {
  const bool abstract = absl::StartsWith(GetParam(), "unix-abstract:");
  // A name that no other run of this test has.
  Server server({}, abstract ? absl::StrCat(GetParam(), "-", getpid()) : GetParam());
  for (ChannelKind kind : {ChannelKind::kDecode, ChannelKind::kBulk}) {
    StreamSet set(WaitPolicy::Block());
    PeerStream* stream = set.Open(server.Connect(kind), kRun);
    uint64_t step = 1;
    for (size_t bytes : {size_t{0}, size_t{1}, size_t{8192}, size_t{65536}, size_t{4} << 20}) {
      ASSERT_TRUE(stream->Send(Frame(step, kSmall, bytes), step).ok());
      EXPECT_EQ(NextStep(&set, bytes), step);
      ++step;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Stream, EveryAddress,
                         ::testing::Values("127.0.0.1:0", "[::1]:0", "", "unix-abstract:gf-test"));

class EveryPolicy : public ::testing::TestWithParam<const char*> {};

TEST_P(EveryPolicy, FansOutAndCollects) {
  std::vector<std::unique_ptr<Server>> servers;
  for (int i = 0; i < 4; ++i) servers.push_back(std::make_unique<Server>());
  StreamSet set(*ParseWaitPolicy(GetParam()));
  std::vector<PeerStream*> streams;
  for (auto& server : servers) streams.push_back(set.Open(server->Connect(), kRun));
  for (uint64_t step = 0; step < 50; ++step) {
    for (size_t i = 0; i < 4; ++i) {
      ASSERT_TRUE(streams[i]->Send(Frame(step * 4 + i, kSmall), step * 4 + i).ok());
    }
    std::vector<bool> answered(4);
    for (int n = 0; n < 4; ++n) {
      StreamEvent event;
      ASSERT_TRUE(set.WaitAny(Soon(), &event));
      ASSERT_EQ(event.kind, StreamEvent::Kind::kAnswer);
      EXPECT_EQ(event.stream, streams[event.token % 4]);
      EXPECT_EQ(event.token / 4, step);
      EXPECT_EQ(Answer(event).key().step(), event.token);
      answered[event.token % 4] = true;
    }
    EXPECT_THAT(answered, ElementsAre(true, true, true, true));
  }
}

INSTANTIATE_TEST_SUITE_P(Stream, EveryPolicy, ::testing::Values("block", "hybrid:20us", "spin"));

TEST(Stream, AnswersSeveralCallsInFlightInOrder) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(server.Connect(), kRun);
  // Small and large ones mixed: the poll thread must not overtake the worker.
  for (uint64_t step = 0; step < 200; ++step) {
    ASSERT_TRUE(stream->Send(Frame(step, step % 3 == 0 ? kLarge : kSmall, 3000), step).ok());
  }
  for (uint64_t step = 0; step < 200; ++step) EXPECT_EQ(NextStep(&set, 3000), step);
  absl::MutexLock lock(&server.handler.mu);
  EXPECT_GT(server.handler.frames_by_thread["rpc-work-0"], 60);
}

// Of a kind: the first one shows how long they take, and after one that took long so do others.
TEST(Stream, AnswersFramesThatAreQuickOnThePollThread) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(server.Connect(), kRun);
  uint64_t step = 0;
  const auto send = [&](Layer kind) {
    ++step;
    ASSERT_TRUE(stream->Send(Frame(step, kind), step).ok());
    ASSERT_EQ(NextStep(&set), step);
  };
  send(kSmall);
  EXPECT_EQ(server.handler.FramesOn("rpc-poll"), 0);
  // Those that are quick, which on a busy machine are not all.
  while (server.handler.FramesOn("rpc-poll") < 20 && step < 10'000) send(kSmall);
  EXPECT_EQ(server.handler.FramesOn("rpc-poll"), 20);
  send(kSlow);
  const int n = server.handler.FramesOn("rpc-poll");
  for (int i = 0; i < 20; ++i) send(kSmall);
  EXPECT_EQ(server.handler.FramesOn("rpc-poll"), n);
  while (server.handler.FramesOn("rpc-poll") == n && step < 10'000) send(kSmall);
  EXPECT_GT(server.handler.FramesOn("rpc-poll"), n);
}

// Neither by what it computes itself nor by waiting for what a worker computes.
TEST(Stream, NothingHoldsUpThePollThread) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* slow = set.Open(server.Connect(), kRun);
  PeerStream* quick = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(quick->Send(Frame(1, kSmall), 1).ok());
  EXPECT_EQ(NextStep(&set), 1);
  ASSERT_TRUE(slow->Send(Frame(2, kGated), 2).ok());
  ASSERT_TRUE(slow->Send(Frame(3, kSmall), 3).ok());
  server.handler.WaitForGated(1, &set);
  ASSERT_TRUE(quick->Send(Frame(4, kSmall), 4).ok());
  set.Open(server.Connect(), kRun);
  server.handler.WaitForSessions(3, &set);  // it still opens streams
  server.handler.OpenGate();
  std::set<uint64_t> answered;
  for (int i = 0; i < 3; ++i) answered.insert(NextStep(&set));
  EXPECT_THAT(answered, ElementsAre(2, 3, 4));
}

TEST(Stream, RefusesFramesWhenTheQueueIsFull) {
  StreamOptions options;
  options.max_queued_frames = 2;
  Server server(options);
  StreamSet set(WaitPolicy::Block());
  PeerStream* first = set.Open(server.Connect(), kRun);
  PeerStream* second = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(first->Send(Frame(1, kGated), 1).ok());
  server.handler.WaitForGated(1, &set);
  ASSERT_TRUE(second->Send(Frame(2, kLarge), 2).ok());
  ASSERT_TRUE(second->Send(Frame(3, kLarge), 3).ok());  // the third in the queue
  ASSERT_TRUE(second->Send(Frame(4, kLarge), 4).ok());
  server.handler.WaitForRefused(2, &set);
  // Else a router would learn that a shard is busy when it could have had the answer.
  ASSERT_TRUE(set.Open(server.Connect(), kRun)->Send(Frame(5, kLarge), 5).ok());
  StreamEvent event;
  EXPECT_TRUE(set.WaitAny(Soon(), &event)) << "a refusal waits for a worker";
  EXPECT_EQ(event.token, 5u);
  EXPECT_EQ(Answer(event).refusal().reason(), REFUSAL_REASON_BUSY);
  server.handler.OpenGate();
  std::map<uint64_t, bool> refused;
  std::vector<uint64_t> order;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(set.WaitAny(Soon(), &event));
    const ExpertServiceRunResponse response = Answer(event);
    EXPECT_EQ(response.key().step(), event.token);
    refused[event.token] = response.refusal().reason() == REFUSAL_REASON_BUSY;
    if (event.stream == second) order.push_back(event.token);
  }
  EXPECT_THAT(order, ElementsAre(2, 3, 4));
  EXPECT_THAT(refused, ElementsAre(std::pair(1, false), std::pair(2, false), std::pair(3, true),
                                   std::pair(4, true)));
}

// As many lanes as there may be, each with a call under way.
TEST(Stream, DoesNotRefuseSmallFramesForTheirNumber) {
  constexpr uint64_t kStreams = 100;
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* gated = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(gated->Send(Frame(0, kGated), 0).ok());
  server.handler.WaitForGated(1, &set);
  const auto channel = server.Connect();
  for (uint64_t step = 1; step <= kStreams; ++step) {
    ASSERT_TRUE(set.Open(channel, kRun)->Send(Frame(step, kSmall), step).ok());
  }
  server.handler.WaitForSessions(1 + kStreams, &set);
  server.handler.OpenGate();
  for (uint64_t i = 0; i <= kStreams; ++i) {
    StreamEvent event;
    ASSERT_TRUE(set.WaitAny(Soon(), &event));
    EXPECT_FALSE(Answer(event).has_refusal());
  }
}

TEST(Stream, RefusesPayloadsThatDoNotFitIntoTheQueue) {
  StreamOptions options;
  options.max_queued_bytes = 100000;
  Server server(options);
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(stream->Send(Frame(1, kLarge, 200000), 1).ok());
  StreamEvent event;
  ASSERT_TRUE(set.WaitAny(Soon(), &event));
  EXPECT_EQ(Answer(event).refusal().reason(), REFUSAL_REASON_BUSY);
  ASSERT_TRUE(stream->Send(Frame(2, kLarge, 90000), 2).ok());
  EXPECT_EQ(NextStep(&set, 90000), 2);
}

TEST(Stream, RefusesStreamsPastTheLimit) {
  StreamOptions options;
  options.max_streams = 1;
  Server server(options);
  StreamSet set(WaitPolicy::Block());
  PeerStream* first = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(first->Send(Frame(1, kSmall), 1).ok());
  EXPECT_EQ(NextStep(&set), 1);
  PeerStream* second = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(second->Send(Frame(2, kSmall), 2).ok());
  const StreamEvent event = NextBroken(&set);
  EXPECT_EQ(event.stream, second);
  EXPECT_EQ(event.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(event.status), "QUEUE_FULL");
  // Once the first has ended there is room again.
  set.Close(first);
  server.handler.WaitForSessions(0);
}

TEST(Stream, EndsWithTheHandlersError) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(stream->Send(Frame(1, kLarge), 1).ok());
  ASSERT_TRUE(stream->Send(Frame(2, kFail), 2).ok());
  ASSERT_TRUE(stream->Send(Frame(3, kSmall), 3).ok());
  EXPECT_EQ(NextStep(&set), 1);  // what was answered before arrives
  const StreamEvent event = NextBroken(&set);
  EXPECT_EQ(event.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(event.status), "CHECKPOINT_MISMATCH");
  EXPECT_THAT(event.stream->in_flight(), ElementsAre(2, 3));
  server.handler.WaitForSessions(0);
}

TEST(Stream, EndsWithTheErrorOfOpening) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  StreamSet::OpenOptions options;
  options.metadata = {{"refuse", "yes"}};
  set.Open(server.Connect(), kRun, options);
  EXPECT_EQ(NextBroken(&set).status.code(), absl::StatusCode::kUnimplemented);
}

TEST(Stream, FreesTheSessionWhenTheClientCloses) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(stream->Send(Frame(1, kSmall), 1).ok());
  EXPECT_EQ(NextStep(&set), 1);
  server.handler.WaitForSessions(1);
  set.Close(stream);
  server.handler.WaitForSessions(0);
  StreamEvent event;
  EXPECT_FALSE(set.WaitAny(absl::Now() + absl::Milliseconds(5), &event));
  EXPECT_EQ(set.n_streams(), 0);
}

TEST(Stream, DropsWhatACancelledClientStillWaitedFor) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(server.Connect(), kRun);
  for (uint64_t step = 1; step <= 4; ++step) {
    ASSERT_TRUE(stream->Send(Frame(step, kGated), step).ok());
  }
  server.handler.WaitForGated(1, &set);
  stream->Cancel();
  EXPECT_EQ(NextBroken(&set).status.code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(stream->Send(Frame(5, kSmall), 5).ok());
  // Another stream that is open shows that the server is past the cancellation.
  set.Open(server.Connect(), kRun);
  server.handler.WaitForSessions(2, &set);
  server.handler.OpenGate();
  server.handler.WaitForSessions(1);  // the other's
  absl::MutexLock lock(&server.handler.mu);
  EXPECT_LE(server.handler.n_gated, 2);
}

TEST(Stream, ReportsADeadServerOnceAndReachesTheNextOne) {
  auto server = std::make_unique<Server>();
  const std::string address = server->rpc->address();
  StreamSet set(WaitPolicy::Block());
  const auto channel = server->Connect();
  PeerStream* stream = set.Open(channel, kRun);
  ASSERT_TRUE(stream->Send(Frame(1, kSmall), 1).ok());
  EXPECT_EQ(NextStep(&set), 1);
  server.reset();
  const StreamEvent event = NextBroken(&set);
  EXPECT_EQ(event.stream, stream);
  EXPECT_EQ(event.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(stream->broken());
  EXPECT_EQ(stream->Send(Frame(2, kSmall), 2).code(), absl::StatusCode::kUnavailable);
  StreamEvent more;
  EXPECT_FALSE(set.WaitAny(absl::Now() + absl::Milliseconds(5), &more));
  set.Close(stream);

  Server next({}, address);
  uint64_t answered = 0;
  while (answered == 0) {  // gRPC waits a moment before it connects again
    PeerStream* again = set.Open(channel, kRun);
    ASSERT_TRUE(again->Send(Frame(3, kSmall), 3).ok());
    ASSERT_TRUE(set.WaitAny(Soon(), &more));
    if (more.kind == StreamEvent::Kind::kAnswer) answered = more.token;
    set.Close(again);
  }
  EXPECT_EQ(answered, 3);
}

TEST(Stream, ReportsAPeerThatIsNotThere) {
  StreamSet set(WaitPolicy::Block());
  const auto channel = *MakeChannel(absl::StrCat("unix:", ::testing::TempDir(), "/gf-nobody"),
                                    ChannelKind::kDecode, ChannelOptions());
  PeerStream* stream = set.Open(channel, kRun);
  ASSERT_TRUE(stream->Send(Frame(1, kSmall), 1).ok());
  const StreamEvent event = NextBroken(&set);
  EXPECT_EQ(event.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(stream->in_flight(), ElementsAre(1));
}

TEST(Stream, EndsAtItsDeadline) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  StreamSet::OpenOptions options;
  options.deadline = absl::Now() + absl::Milliseconds(30);
  PeerStream* stream = set.Open(server.Connect(), kRun, options);
  ASSERT_TRUE(stream->Send(Frame(1, kGated), 1).ok());
  EXPECT_EQ(NextBroken(&set).status.code(), absl::StatusCode::kDeadlineExceeded);
  server.handler.OpenGate();
  server.handler.WaitForSessions(0);
}

TEST(Stream, LimitsCallsInFlight) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(server.Connect(), kRun);
  for (int i = 0; i < PeerStream::kMaxInFlight; ++i) {
    ASSERT_TRUE(stream->Send(Frame(i, kSmall), i).ok());
  }
  EXPECT_EQ(stream->Send(Frame(0, kSmall)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(NextStep(&set), 0);
  EXPECT_TRUE(stream->Send(Frame(256, kSmall), 256).ok());
}

TEST(Stream, IsClosedWithCallsInFlight) {
  Server server;
  server.handler.OpenGate();
  for (int i = 0; i < 20; ++i) {
    StreamSet set(WaitPolicy::Block());
    PeerStream* stream = set.Open(server.Connect(), kRun);
    for (int k = 0; k < i; ++k) {
      ASSERT_TRUE(stream->Send(Frame(k, k % 2 == 0 ? kLarge : kSmall, 100000), k).ok());
    }
    StreamEvent event;
    if (i % 3 == 1) set.WaitAny(absl::Now(), &event);
    if (i % 3 == 2) set.WaitAny(Soon(), &event);
  }
  server.handler.WaitForSessions(0);
}

TEST(Stream, WakesItsThreadFromAnother) {
  StreamSet set(WaitPolicy::Block());
  for (int i = 0; i < 3; ++i) {
    std::thread other([&] {
      set.Wake();
      set.Wake();
    });
    StreamEvent event;
    ASSERT_TRUE(set.WaitAny(Soon(), &event));
    EXPECT_EQ(event.kind, StreamEvent::Kind::kWoken);
    other.join();
    while (set.WaitAny(absl::Now() + absl::Milliseconds(2), &event)) {
    }
  }
  set.Wake();  // still pending when the set ends
}

TEST(Stream, DrainsAtShutdown) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  PeerStream* busy = set.Open(server.Connect(), kRun);
  PeerStream* idle = set.Open(server.Connect(), kRun);
  ASSERT_TRUE(idle->Send(Frame(1, kSmall), 1).ok());
  EXPECT_EQ(NextStep(&set), 1);
  ASSERT_TRUE(busy->Send(Frame(2, kGated), 2).ok());
  server.handler.WaitForGated(1, &set);

  std::thread shutdown([&] { server.rpc->Shutdown(absl::Seconds(20)); });
  EXPECT_EQ(NextBroken(&set).stream, idle);
  server.handler.OpenGate();
  StreamEvent event;
  ASSERT_TRUE(set.WaitAny(Soon(), &event));
  EXPECT_EQ(event.kind, StreamEvent::Kind::kAnswer);
  EXPECT_EQ(event.stream, busy);
  EXPECT_EQ(ReasonOf(NextBroken(&set).status), "DRAINING");
  shutdown.join();
  server.handler.WaitForSessions(0);
}

TEST(Stream, SpeaksWithGeneratedClients) {
  Server server;
  const auto stub = ExpertService::NewStub(server.Connect());
  grpc::ClientContext context;
  const auto stream = stub->Run(&context);
  for (uint64_t step = 1; step <= 3; ++step) {
    ExpertServiceRunRequest request;
    request.mutable_key()->set_step(step);
    request.set_hidden_states(std::string(step * 50000, 'h'));
    ASSERT_TRUE(stream->Write(request));
    ExpertServiceRunResponse response;
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.key().step(), step);
    EXPECT_EQ(response.hidden_states(), request.hidden_states());
  }
  stream->WritesDone();
  ExpertServiceRunResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

// A server of generated code.
class GeneratedService final : public ExpertService::Service {
 public:
  grpc::Status Run(grpc::ServerContext*,
                   grpc::ServerReaderWriter<ExpertServiceRunResponse, ExpertServiceRunRequest>*
                       stream) override {
    ExpertServiceRunRequest request;
    while (stream->Read(&request)) {
      ExpertServiceRunResponse response;
      *response.mutable_key() = request.key();
      response.set_hidden_states(request.hidden_states());
      stream->Write(response);
    }
    return grpc::Status::OK;
  }
};

TEST(Stream, SpeaksWithGeneratedServers) {
  GeneratedService service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  StreamSet set(WaitPolicy::Block());
  PeerStream* stream = set.Open(
      *MakeChannel(absl::StrCat("127.0.0.1:", port), ChannelKind::kDecode, ChannelOptions()), kRun);
  for (uint64_t step = 1; step <= 3; ++step) {
    ASSERT_TRUE(stream->Send(Frame(step, kSmall, step * 50000), step).ok());
    EXPECT_EQ(NextStep(&set, step * 50000), step);
  }
}

TEST(StreamTest, CountsWhatGoesAndComes) {
  Server server;
  StreamSet set(WaitPolicy::Block());
  StreamSet::OpenOptions options;
  options.traffic = std::make_shared<PeerTraffic>();
  std::vector<absl::StatusCode> ends;
  options.on_end = [&ends](absl::StatusCode code, absl::Duration) { ends.push_back(code); };
  PeerStream* const stream = set.Open(server.Connect(), kRun, options);
  const grpc::ByteBuffer frame = Frame(1, kSmall, 5000);
  ASSERT_TRUE(stream->Send(frame).ok());
  EXPECT_EQ(options.traffic->bytes_sent, frame.Length());
  EXPECT_EQ(options.traffic->n_answers, 0u);
  StreamEvent event;
  ASSERT_TRUE(set.WaitAny(Soon(), &event));
  EXPECT_EQ(options.traffic->n_answers, 1u);
  EXPECT_EQ(options.traffic->bytes_received, event.answer.Length());
  EXPECT_GE(options.traffic->bytes_received, 5000u);
  EXPECT_GT(options.traffic->answer_nanos, 0u);
  EXPECT_LT(options.traffic->answer_nanos, 20'000'000'000u);

  ASSERT_TRUE(stream->Send(Frame(2, kFail)).ok());
  ASSERT_TRUE(set.WaitAny(Soon(), &event));
  EXPECT_EQ(event.kind, StreamEvent::Kind::kBroken);
  EXPECT_THAT(ends, ElementsAre(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(options.traffic->n_answers, 1u);
  set.Close(stream);
  EXPECT_FALSE(set.WaitAny(absl::Now() + absl::Milliseconds(5), &event));
  EXPECT_EQ(ends.size(), 1u);
}

TEST(StreamTest, TellsTheEndOfAClosedStream) {
  Server server;
  std::vector<absl::StatusCode> ends;
  StreamSet::OpenOptions options;
  options.on_end = [&ends](absl::StatusCode code, absl::Duration) { ends.push_back(code); };
  {
    StreamSet set(WaitPolicy::Block());
    PeerStream* const stream = set.Open(server.Connect(), kRun, options);
    ASSERT_TRUE(stream->Send(Frame(1, kSmall), 1).ok());
    EXPECT_EQ(NextStep(&set), 1);
    set.Close(stream);
    EXPECT_THAT(ends, ElementsAre());  // it never waits
  }
  EXPECT_THAT(ends, ElementsAre(absl::StatusCode::kCancelled));
}

}  // namespace
}  // namespace gatefold

// Experts from shard to shard: both ends, and ends that lie.

#include "expert-service/expert_transfer.h"

#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "expert-service/checkpoint_experts.h"
#include "expert-service/expert_sender.h"
#include "expert-service/expert_service.h"
#include "expert-service/shard_experts.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/stream_client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using internal::v1::FetchExpertRequest;
using internal::v1::FetchExpertResponse;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr char kSparse[] = "tests/golden/mixtral/bf16";
constexpr char kSparseF32[] = "tests/golden/mixtral/f32";
constexpr char kBiased[] = "tests/golden/llama_biases";

std::unique_ptr<ExpertCatalog> WithWeights(const char* model) {
  auto weights = *ModelWeights::Open(model, {3});
  ModelManifest manifest = *ModelManifest::Make(*weights, nullptr);
  return std::make_unique<ExpertCatalog>(std::move(weights), std::move(manifest));
}
std::unique_ptr<ExpertCatalog> WithoutWeights(const char* model) {
  const auto weights = *ModelWeights::Open(model, {3});
  return std::make_unique<ExpertCatalog>(weights->config(),
                                         *ModelManifest::Make(*weights, nullptr));
}
std::vector<ExpertId> All(const ModelConfig& config) {
  return *ParseExpertSelection("all", config.n_layers, config.experts_per_layer());
}
std::string Address(const std::string& name) {
  return absl::StrCat("unix-abstract:expert-transfer-test-", name, "-", getpid());
}

std::unique_ptr<RpcServer> MakeServer(const std::string& name) {
  ServerOptions options;
  options.addresses = {Address(name)};
  return std::make_unique<RpcServer>(std::move(options));
}

// A shard that serves.
struct Shard {
  Shard(const std::string& name, std::unique_ptr<ExpertCatalog> its_catalog,
        ExpertSender::Options options,
        std::unique_ptr<ExpertBackend> its_backend = MakeCpuExpertBackend(nullptr))
      : catalog(std::move(its_catalog)),
        backend(std::move(its_backend)),
        sender(catalog.get(), &store, options),
        server(MakeServer(name)) {
    service.SetSender(&sender);
    service.SetReady();
    service.Register(server.get());
    EXPECT_TRUE(server->Start().ok());
  }
  explicit Shard(const std::string& name, const char* model = kSparse, bool weights = true,
                 std::unique_ptr<ExpertBackend> its_backend = MakeCpuExpertBackend(nullptr))
      : Shard(name, weights ? WithWeights(model) : WithoutWeights(model), {},
              std::move(its_backend)) {}
  ~Shard() { server->Shutdown(absl::ZeroDuration()); }
  void Hold(const char* model, const std::vector<ExpertId>& experts) {
    const auto weights = *ModelWeights::Open(model, {3});
    EXPECT_TRUE(CheckpointExperts(weights.get(), backend.get())
                    .Fill(experts, nullptr, nullptr, &store)
                    .ok());
  }
  std::string address() const { return server->address(); }

  std::unique_ptr<ExpertCatalog> catalog;
  const std::unique_ptr<ExpertBackend> backend;
  ExpertStore store{catalog->config(), backend.get()};
  ExpertRunner runner{&store};
  ExpertSender sender;
  ExpertService service{&runner, {}, nullptr};
  std::unique_ptr<RpcServer> server;
};

class Counts final : public LoadObserver {
 public:
  void OnLoaded(const LoadedExpert&) override {}
  void OnLoadFailed(absl::string_view reason) override { ++failed[std::string(reason)]; }
  std::map<std::string, int> failed;
};

// A shard that has no weights and fetches.
struct Receiver {
  explicit Receiver(const char* model = kSparse, absl::Duration piece_timeout = absl::Seconds(20),
                    absl::Duration busy_patience = absl::ZeroDuration())
      : catalog(WithoutWeights(model)),
        source(catalog.get(), backend.get(), &counts,
               {.piece_timeout = piece_timeout, .busy_patience = busy_patience}) {}
  void Ask(const std::vector<std::string>& addresses) {
    std::vector<ExpertHolder> holders;
    for (const std::string& address : addresses)
      holders.push_back({address, All(catalog->config())});
    source.SetHolders(std::move(holders));
  }
  absl::Status Get(ExpertId id) {
    auto loaded = source.Get(id, nullptr);
    if (loaded.ok()) got = loaded->expert;
    return loaded.status();
  }

  std::unique_ptr<ExpertCatalog> catalog;
  std::unique_ptr<ExpertBackend> backend = MakeCpuExpertBackend(nullptr);
  Counts counts;
  ShardExperts source;
  std::shared_ptr<const HeldExpert> got;
};

std::string Image(const ExpertLayout& layout, const ExpertRowReader& rows) {
  std::string image(layout.size_bytes(), '\0');
  layout.Read(rows, 0, image.size(), image.data());
  return image;
}

std::string HeldImage(const ExpertLayout& layout, const HeldExpert& expert) {
  return Image(layout, [&](ExpertPart part, DType dtype, int64_t row, void* to) {
    expert.CopyRow(part, dtype, row, to);
  });
}

class SendersTest : public testing::TestWithParam<const char*> {};

TEST_P(SendersTest, WhatTheyHoldAndWhatTheyReadIsTheCheckpointBitForBit) {
  Shard memory("memory", GetParam(), /*weights=*/false), files("files", GetParam());
  const auto weights = *ModelWeights::Open(GetParam(), {3});
  memory.Hold(GetParam(), All(weights->config()));
  for (const Shard* shard : {&memory, &files}) {
    Receiver receiver(GetParam());
    receiver.Ask({shard->address()});
    for (const ExpertId id : All(weights->config())) {
      ASSERT_TRUE(receiver.Get(id).ok());
      const ExpertWeightsView view = weights->Expert(id.layer, id.expert);
      const ExpertLayout layout = ExpertLayout::Of(view);
      EXPECT_EQ(HeldImage(layout, *receiver.got), Image(layout, RowsOf(view)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SendersTest, testing::Values(kSparse, kSparseF32, kBiased));

// ---- what senders refuse

class SenderTest : public testing::Test {
 protected:
  // Sends a request; the stream's end, whatever came before it.
  absl::Status Fetch(const Shard& shard,
                     const std::function<void(FetchExpertRequest*)>& change = {}) {
    FetchExpertRequest request = MakeFetchRequest(*shard.catalog, {1, 2});
    if (change) change(&request);
    StreamSet streams(WaitPolicy::Block());
    PeerStream* const stream =
        streams.Open(*MakeChannel(shard.address(), ChannelKind::kBulk, {}), kFetchMethod);
    EXPECT_TRUE(stream->SendLast(WriteMessage(request)).ok());
    StreamEvent event;
    while (streams.WaitAny(absl::Now() + absl::Seconds(20), &event)) {
      if (event.kind == StreamEvent::Kind::kBroken) return event.status;
    }
    return absl::DeadlineExceededError("no end");
  }
};

TEST_F(SenderTest, RefusesWhoMeansAnotherModelOrSpeaksAnotherWire) {
  const Shard shard("refuses");
  EXPECT_TRUE(Fetch(shard).ok());
  const absl::Status model = Fetch(shard, [](auto* r) { r->set_model_fingerprint("other"); });
  EXPECT_EQ(model.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(model.message()), HasSubstr("model_fingerprint is \"other\""));
  const absl::Status wire = Fetch(shard, [](auto* r) { r->set_wire_version(9); });
  EXPECT_EQ(wire.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(wire.message()), HasSubstr("wire_version is 9"));
  EXPECT_THAT(std::string(Fetch(shard, [](auto* r) { r->set_layer(4); }).message()),
              HasSubstr("layer is 4, the model has 4"));
  EXPECT_THAT(std::string(Fetch(shard, [](auto* r) { r->set_expert(0xffffffff); }).message()),
              HasSubstr("a layer has 8"));
}

TEST_F(SenderTest, SaysThatItHasNotWhatItNeitherHoldsNorCanRead) {
  Shard shard("without", kSparse, /*weights=*/false);
  const absl::Status status = Fetch(shard);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expert 2 of layer 1 is not held"));
  shard.Hold(kSparse, {{1, 2}});
  EXPECT_TRUE(Fetch(shard).ok());
  EXPECT_FALSE(shard.service.Describe().has_checkpoint());
  EXPECT_TRUE(shard.service.Describe().sends_held());
}

// What is quantised does not give the checkpoint's bits back; the files beside it do.
TEST_F(SenderTest, QuantisedExpertsAreSentFromTheCheckpointOrNotAtAll) {
  const auto int8 = [] { return MakeCpuExpertBackend(nullptr, {.weights = WeightKind::kInt8}); };
  Shard without("int8-without", kSparse, /*weights=*/false, int8());
  without.Hold(kSparse, {{1, 2}});
  const absl::Status status = Fetch(without);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expert 2 of layer 1 is quantised"));
  EXPECT_FALSE(without.service.Describe().sends_held());

  Shard with("int8-with", kSparse, /*weights=*/true, int8());
  with.Hold(kSparse, {{1, 2}});
  Receiver receiver(kSparse);
  receiver.Ask({with.address()});
  ASSERT_TRUE(receiver.Get({1, 2}).ok());
  const ExpertWeightsView view = with.catalog->weights()->Expert(1, 2);
  const ExpertLayout layout = ExpertLayout::Of(view);
  EXPECT_EQ(HeldImage(layout, *receiver.got), Image(layout, RowsOf(view)));
}

// A receiver that asks and then takes nothing.
class Sleeper {
 public:
  explicit Sleeper(const Shard& shard, ExpertId id)
      : stream_(
            streams_.Open(*MakeChannel(shard.address(), ChannelKind::kDecode, {}), kFetchMethod)) {
    EXPECT_TRUE(stream_->SendLast(WriteMessage(MakeFetchRequest(*shard.catalog, id))).ok());
    // Until the transfer has begun.
    StreamEvent event;
    EXPECT_TRUE(streams_.WaitAny(absl::Now() + absl::Seconds(20), &event));
    EXPECT_EQ(event.kind, StreamEvent::Kind::kAnswer);
  }
  absl::Status End() {
    StreamEvent event;
    while (streams_.WaitAny(absl::Now() + absl::Seconds(20), &event)) {
      if (event.kind == StreamEvent::Kind::kBroken) return event.status;
    }
    return absl::DeadlineExceededError("no end");
  }

 private:
  StreamSet streams_{WaitPolicy::Block()};
  PeerStream* const stream_;
};

TEST_F(SenderTest, KeepsNoExpertInMemoryThatItReadsFromTheCheckpoint) {
  absl::Notification dropped;
  Shard shard("reads", WithWeights(kSparse), {.on_piece = [&] { dropped.WaitForNotification(); }},
              MakeCpuExpertBackend(nullptr, {.weights = WeightKind::kInt8}));
  shard.Hold(kSparse, {{1, 2}});
  const Sleeper sleeper(shard, {1, 2});
  const auto held = shard.store.Drop({{1, 2}});
  ASSERT_EQ(held.size(), 1u);
  EXPECT_EQ(held[0].use_count(), 1);
  dropped.Notify();
}

// One expert of 24 MB: more than buffers and queues on the way take.
std::unique_ptr<ExpertCatalog> Large() {
  ModelConfig config = (*ModelWeights::Open(kSparse))->config();
  config.n_layers = 1;
  config.n_experts = 1;
  config.top_k = 1;
  config.d_model = 1024;
  config.d_ff = 4096;
  ModelManifest manifest;
  manifest.model_fingerprint = std::string(32, 'f');
  manifest.dtype = DType::kBF16;
  manifest.digests = {std::string(64, '0')};
  return std::make_unique<ExpertCatalog>(config, manifest);
}

struct LargeShard : Shard {
  explicit LargeShard(const std::string& name, ExpertSender::Options options)
      : Shard(name, Large(), std::move(options)) {
    const ExpertLayout layout = catalog->Layout(0, 0);
    Buffer image(layout.size_bytes());
    store.Put({0, 0}, *backend->Load(layout.View(image.as<char>()), nullptr));
  }
};

TEST_F(SenderTest, ComputesWhileATransferIsUnderWayAndStuck) {
  LargeShard shard("computes", {.n_threads = 1});
  const Sleeper sleeper(shard, {0, 0});
  // Over the network, by the thread that also sends.
  StreamSet streams(WaitPolicy::Block());
  PeerStream* const run = streams.Open(*MakeChannel(shard.address(), ChannelKind::kDecode, {}),
                                       "/gatefold.internal.v1.ExpertService/Run");
  internal::v1::ExpertServiceRunRequest request;
  request.set_dtype(internal::v1::WIRE_DTYPE_FLOAT32);
  request.set_n_rows(1);
  request.set_d_model(1024);
  request.add_experts(0);
  request.add_n_rows_of_expert(1);
  request.add_rows(0);
  for (int i = 0; i < 20; ++i) {
    PayloadBuffer rows(1024 * sizeof(float));
    std::fill_n(rows.as<float>(), 1024, 0.5f);
    ASSERT_TRUE(run->Send(WriteFrame(request, rows)).ok());
    StreamEvent event;
    ASSERT_TRUE(streams.WaitAny(absl::Now() + absl::Seconds(20), &event));
    internal::v1::ExpertServiceRunResponse response;
    FramePayload payload;
    ASSERT_TRUE(ReadFrame(event.answer, &response, &payload).ok());
    EXPECT_FALSE(response.has_refusal()) << response.refusal().message();
  }
  // And it still is.
  FetchExpertRequest fetch = MakeFetchRequest(*shard.catalog, {0, 0});
  EXPECT_EQ(Fetch(shard, [&](auto* r) { *r = fetch; }).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(SenderTest, SendsAFewAtATime) {
  LargeShard shard("bounded", {.n_threads = 2});
  const Sleeper first(shard, {0, 0}), second(shard, {0, 0});
  const absl::Status third = Fetch(shard, [&](auto* r) {
    *r = MakeFetchRequest(*shard.catalog, {0, 0});
  });
  EXPECT_EQ(third.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(third.message()), HasSubstr("sends 2 experts at a time"));
}

TEST_F(SenderTest, GivesUpThoseWhoTakeNothing) {
  LargeShard shard("gives-up", {.n_threads = 1, .stall_timeout = absl::Seconds(2)});
  Sleeper sleeper(shard, {0, 0});
  absl::Status later;
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  do {
    later = Fetch(shard, [&](auto* r) { *r = MakeFetchRequest(*shard.catalog, {0, 0}); });
  } while (!later.ok() && absl::Now() < deadline);
  EXPECT_TRUE(later.ok()) << later;
  // Asked only now: who asks for the end takes what comes before it.
  EXPECT_EQ(sleeper.End().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(SenderTest, AReceiverThatGoesAwayFreesItsPlaceAtOnce) {
  LargeShard shard("leaves", {.n_threads = 1});
  { const Sleeper sleeper(shard, {0, 0}); }
  absl::Status later;
  const absl::Time deadline = absl::Now() + absl::Seconds(5);  // less than the stall timeout
  do {
    later = Fetch(shard, [&](auto* r) { *r = MakeFetchRequest(*shard.catalog, {0, 0}); });
  } while (!later.ok() && absl::Now() < deadline);
  EXPECT_TRUE(later.ok()) << later;
}

// ---- who lies to receivers

// Answers FetchExpert with messages of a test's own.
class Liar {
 public:
  using Script =
      std::function<absl::Status(const std::function<void(const FetchExpertResponse&)>& say)>;
  // Truth to start from: the header and the image of one expert.
  explicit Liar(const std::string& name, Script script)
      : server_(MakeServer(name)), script_(std::move(script)) {
    AddServerStreaming<FetchExpertRequest, FetchExpertResponse>(
        server_.get(), "gatefold.internal.v1.ExpertService", "FetchExpert",
        [this](std::shared_ptr<CallContext>, const FetchExpertRequest&,
               std::shared_ptr<ServerStream<FetchExpertResponse>> stream) {
          const absl::Status end =
              script_([&](const FetchExpertResponse& message) { stream->Write(message); });
          if (end.code() == absl::StatusCode::kCancelled) {
            silent_.push_back(stream);  // says nothing more
          } else {
            stream->Finish(end);
          }
        },
        {.max_queued_messages = 10'000});
    EXPECT_TRUE(server_->Start().ok());
  }
  ~Liar() { server_->Shutdown(absl::ZeroDuration()); }
  std::string address() const { return server_->address(); }

 private:
  std::unique_ptr<RpcServer> server_;
  const Script script_;
  std::vector<std::shared_ptr<ServerStream<FetchExpertResponse>>> silent_;
};

class ReceiverTest : public testing::Test {
 protected:
  ReceiverTest() {
    const ExpertWeightsView view = truth_->weights()->Expert(kId.layer, kId.expert);
    header_ = MakeFetchHeader(*truth_, ExpertLayout::Of(view));
    image_ = Image(ExpertLayout::Of(view), RowsOf(view));
  }
  static FetchExpertResponse Piece(const std::string& bytes) {
    FetchExpertResponse piece;
    piece.set_image(bytes);
    return piece;
  }
  // An honest shard behind the liar is asked next, and gives the expert.
  void ExpectFound(Liar::Script script, const std::string& reason, const std::string& message,
                   absl::Duration piece_timeout = absl::Seconds(20)) {
    const std::string name = absl::StrCat("liar-", ++n_);
    const Liar liar(name, std::move(script));
    Receiver receiver(kSparse, piece_timeout);
    receiver.Ask({liar.address()});
    const absl::Status alone = receiver.Get(kId);
    EXPECT_EQ(alone.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(alone.message()), HasSubstr(message));
    EXPECT_THAT(receiver.counts.failed, ElementsAre(Pair(reason, 1)));
    const Shard honest(absl::StrCat(name, "-honest"));
    receiver.Ask({liar.address(), honest.address()});
    ASSERT_TRUE(receiver.Get(kId).ok());
    EXPECT_EQ(HeldImage(truth_->Layout(kId.layer, kId.expert), *receiver.got), image_);
  }

  static constexpr ExpertId kId = {2, 5};
  const std::unique_ptr<ExpertCatalog> truth_ = WithWeights(kSparse);
  FetchExpertResponse header_;
  std::string image_;
  int n_ = 0;
};

TEST_F(ReceiverTest, TakesAnExpertInPiecesOfAnySize) {
  const Liar honest("honest", [&](const auto& say) {
    say(header_);
    say(Piece(image_.substr(0, 1)));
    say(Piece(image_.substr(1)));
    return absl::OkStatus();
  });
  Receiver receiver;
  receiver.Ask({honest.address()});
  EXPECT_TRUE(receiver.Get(kId).ok());
}

TEST_F(ReceiverTest, FindsAFlippedBit) {
  for (const size_t at : {size_t{0}, image_.size() / 2, image_.size() - 1}) {
    ExpectFound(
        [&, at](const auto& say) {
          std::string wrong = image_;
          wrong[at] ^= 0x10;
          say(header_);
          say(Piece(wrong));
          return absl::OkStatus();
        },
        "digest", "the manifest wants");
  }
}

TEST_F(ReceiverTest, FindsAnotherExpertInItsPlace) {
  ExpectFound(
      [&](const auto& say) {
        const ExpertWeightsView view = truth_->weights()->Expert(2, 6);
        say(header_);
        say(Piece(Image(ExpertLayout::Of(view), RowsOf(view))));
        return absl::OkStatus();
      },
      "digest", "the manifest wants");
}

TEST_F(ReceiverTest, FindsHeadersThatAreNotTheModels) {
  const auto wrong = [&](const std::function<void(FetchExpertResponse*)>& change,
                         const std::string& reason, const std::string& message) {
    ExpectFound(
        [&](const auto& say) {
          FetchExpertResponse header = header_;
          change(&header);
          say(header);
          say(Piece(image_));
          return absl::OkStatus();
        },
        reason, message);
  };
  wrong([](auto* h) { h->set_wire_version(2); }, "refused", "wire_version is 2");
  wrong([](auto* h) { h->set_model_fingerprint("x\ny"); }, "refused", "model_fingerprint is");
  wrong([](auto* h) { h->mutable_tensors(1)->set_n_rows(uint64_t{1} << 60); }, "malformed",
        "tensors[1] is w3");
  wrong([](auto* h) { h->mutable_tensors(2)->set_dtype("float32"); }, "malformed",
        "tensors[2] is w2 float32");
  wrong([](auto* h) { h->mutable_tensors(0)->set_role("w2"); }, "malformed", "must be w1");
  wrong([](auto* h) { h->add_tensors()->set_role("b2"); }, "malformed",
        "size of tensors is 4, must be 3");
  wrong([](auto* h) { h->set_image("x"); }, "malformed", "the first message has bytes");
}

TEST_F(ReceiverTest, FindsImagesThatAreTooShortTooLongOrInBadPieces) {
  const auto say_pieces = [&](std::vector<std::string> pieces, const std::string& message) {
    ExpectFound(
        [&, pieces](const auto& say) {
          say(header_);
          for (const std::string& piece : pieces) say(Piece(piece));
          return absl::OkStatus();
        },
        "malformed", message);
  };
  say_pieces({image_.substr(1)}, absl::StrCat("has ", image_.size() - 1, " bytes, must have"));
  say_pieces({}, "has 0 bytes, must have");
  say_pieces({image_, "x"}, "has more than");
  say_pieces({image_ + "x"}, "has more than");
  say_pieces({""}, "has 0 bytes of the image");
  say_pieces({std::string(kMaxPieceBytes + 1, 'x')}, "must have 1 to 1048576");
}

TEST_F(ReceiverTest, AnEmptyStreamIsNoExpert) {
  ExpectFound([](const auto&) { return absl::OkStatus(); }, "malformed", "has 0 bytes, must have");
}

TEST_F(ReceiverTest, GivesUpWhoIsSilent) {
  const auto silent_after = [&](int n_messages) {
    ExpectFound(
        [&, n_messages](const auto& say) {
          if (n_messages > 0) say(header_);
          if (n_messages > 1) say(Piece(image_.substr(0, 100)));
          return absl::CancelledError("silence");
        },
        "timeout", n_messages > 1 ? "after 100 bytes" : "nothing came", absl::Seconds(1));
  };
  for (int n : {0, 1, 2}) silent_after(n);
}

TEST_F(ReceiverTest, GoesOnAfterWhoDiesOrRefuses) {
  const auto ends = [&](const absl::Status& end, const std::string& reason) {
    ExpectFound(
        [&](const auto& say) {
          say(header_);
          say(Piece(image_.substr(0, 100)));
          return end;
        },
        reason, std::string(end.message()));
  };
  ends(absl::UnavailableError("it died"), "unavailable");
  ends(absl::NotFoundError("dropped it"), "refused");
  // Words that would count as found here.
  ends(absl::DataLossError("a lie"), "refused");
  ends(absl::InvalidArgumentError("a lie"), "refused");
  ExpectFound([&](const auto&) { return absl::ResourceExhaustedError("at a time"); }, "busy",
              "at a time");
}

TEST_F(ReceiverTest, GoesOnAfterWhoIsNotThere) {
  Receiver receiver;
  receiver.Ask({Address("nobody")});
  EXPECT_EQ(receiver.Get(kId).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(receiver.counts.failed, ElementsAre(Pair("unavailable", 1)));
  const Shard honest("somebody");
  receiver.Ask({Address("nobody"), honest.address()});
  EXPECT_TRUE(receiver.Get(kId).ok());
  receiver.Ask({});
  EXPECT_EQ(receiver.Get(kId).code(), absl::StatusCode::kNotFound);
}

TEST_F(ReceiverTest, LeavesWhoWasSilentAloneForAWhile) {
  std::atomic<int> n_asked{0};
  const Liar liar("rests", [&](const auto&) {
    ++n_asked;
    return absl::CancelledError("silence");
  });
  const Shard honest("rests-not");
  Receiver receiver(kSparse, absl::Seconds(1));
  receiver.Ask({liar.address(), honest.address()});
  for (int expert = 0; expert < 8; ++expert) EXPECT_TRUE(receiver.Get({0, expert}).ok());
  EXPECT_EQ(n_asked, 1);
  EXPECT_THAT(receiver.counts.failed, ElementsAre(Pair("timeout", 1)));
}

TEST_F(ReceiverTest, TakesNoMemoryForMessagesThatNobodySends) {
  ExpectFound(
      [&](const auto& say) {
        say(header_);
        say(Piece(std::string(size_t{32} << 20, 'x')));
        return absl::OkStatus();
      },
      "malformed", "larger than max");
}

// Many shards start at once, and one has what all of them need.
TEST_F(ReceiverTest, AsksThoseWhoAreBusyAgainSoonWhereThereIsNobodyElse) {
  std::atomic<int> n_asked{0};
  const Liar sender("busy", [&](const auto& say) {
    if (++n_asked <= 3) return absl::ResourceExhaustedError("at a time");
    say(header_);
    say(Piece(image_));
    return absl::OkStatus();
  });
  Receiver receiver(kSparse, absl::Seconds(20), absl::Seconds(20));
  receiver.Ask({Address("nobody"), sender.address()});
  EXPECT_TRUE(receiver.Get(kId).ok());
  EXPECT_EQ(n_asked, 4);
  // Each is told of once, and who failed is not asked again.
  EXPECT_THAT(receiver.counts.failed, ElementsAre(Pair("busy", 1), Pair("unavailable", 1)));
}

TEST_F(ReceiverTest, StopsAtOnce) {
  const Liar liar("stops", [](const auto&) { return absl::CancelledError("silence"); });
  Receiver receiver;  // would wait for 20 s
  receiver.Ask({liar.address()});
  std::thread getting([&] { EXPECT_EQ(receiver.Get(kId).code(), absl::StatusCode::kCancelled); });
  receiver.source.Stop();
  getting.join();
}

}  // namespace
}  // namespace gatefold

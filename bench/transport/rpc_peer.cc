// The hop as services do it: frames with a header, gathered into a buffer once on each side.

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "bench/transport/measured_peer.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/process.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/stream_client.h"
#include "gatefold/rpc/stream_server.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold::bench {
namespace {

using internal::v1::ExpertServiceRunRequest;
using internal::v1::ExpertServiceRunResponse;
using internal::v1::WIRE_DTYPE_FLOAT32;

constexpr char kService[] = "gatefold.internal.v1.ExpertService";
constexpr char kRun[] = "/gatefold.internal.v1.ExpertService/Run";

class EchoSession final : public StreamSession {
 public:
  explicit EchoSession(bool worker) : worker_(worker) {}

  bool IsSmall(const grpc::ByteBuffer&) const override { return !worker_; }

  absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time) override {
    GF_RETURN_IF_ERROR(ReadFrame(frame, &request_, &payload_));
    GF_RETURN_IF_ERROR(
        CheckShape(payload_, request_.dtype(), request_.n_rows(), request_.d_model()));
    GF_ASSIGN_OR_RETURN(PayloadBuffer answer,
                        MakePayload(request_.dtype(), request_.n_rows(), request_.d_model()));
    payload_.CopyTo(answer.data());
    frame.Clear();
    *response_.mutable_key() = request_.key();
    response_.set_dtype(request_.dtype());
    response_.set_n_rows(request_.n_rows());
    response_.set_d_model(request_.d_model());
    return WriteFrame(response_, answer);
  }

 private:
  const bool worker_;
  ExpertServiceRunRequest request_;
  ExpertServiceRunResponse response_;
  FramePayload payload_;
};

class EchoHandler final : public StreamHandler {
 public:
  explicit EchoHandler(bool worker) : worker_(worker) {}
  absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>&) override {
    return std::make_unique<EchoSession>(worker_);
  }
  grpc::ByteBuffer Refuse(const grpc::ByteBuffer&) override { return grpc::ByteBuffer(); }

 private:
  const bool worker_;
};

// A decode step's call: 8 rows of a sparse model over four of the shard's experts.
ExpertServiceRunRequest MakeHeader(size_t bytes) {
  ExpertServiceRunRequest header;
  header.mutable_key()->set_router_id(0x123456789abcdef);
  header.mutable_key()->set_step(1000);
  header.mutable_key()->set_layer(7);
  header.set_dtype(WIRE_DTYPE_FLOAT32);
  header.set_n_rows(8);
  header.set_d_model(static_cast<uint32_t>(bytes / 8 / sizeof(float)));
  for (int expert : {1, 3, 4, 6}) {
    header.add_experts(expert);
    header.add_n_rows_of_expert(2);
    header.add_rows(expert);
    header.add_rows(expert + 1);
  }
  return header;
}

}  // namespace

absl::Status RunRpcServer(const PeerOptions& options) {
  InitProcess();
  EchoHandler handler(options.worker);
  ServerOptions server_options;
  server_options.addresses = options.addresses;
  server_options.wait = options.wait;
  RpcServer server(server_options);
  AddStream(&server, kService, "Run", &handler, StreamOptions());
  GF_RETURN_IF_ERROR(server.Start());
  PrintAddress(server.address());
  WaitForTermination(absl::InfiniteFuture());
  return absl::OkStatus();
}

absl::Status RunRpcClient(const PeerOptions& options) {
  InitProcess();
  StreamSet set(options.wait);
  std::vector<PeerStream*> streams;
  for (const std::string& address : options.addresses) {
    GF_ASSIGN_OR_RETURN(
        auto channel, MakeChannel(address, options.bulk ? ChannelKind::kBulk : ChannelKind::kDecode,
                                  ChannelOptions()));
    streams.push_back(set.Open(channel, kRun));
  }
  const ExpertServiceRunRequest header = MakeHeader(options.bytes);
  const PayloadBuffer rows(options.bytes);
  std::fill_n(static_cast<char*>(const_cast<void*>(rows.data())), options.bytes, 1);
  Buffer answers(options.bytes);
  ExpertServiceRunResponse response;
  FramePayload payload;
  StreamEvent event;
  const auto fail = [](absl::string_view what) {
    std::fprintf(stderr, "rpc client: %s\n", std::string(what).c_str());
    _exit(1);
  };
  ServeBursts([&] {
    for (PeerStream* stream : streams) {
      if (!stream->Send(WriteFrame(header, rows), 1).ok()) fail("cannot send");
    }
    for (size_t answered = 0; answered < streams.size(); ++answered) {
      if (!set.WaitAny(absl::Now() + absl::Seconds(20), &event)) fail("no answer");
      if (event.kind != StreamEvent::Kind::kAnswer) fail(event.status.ToString());
      const absl::Status read = ReadFrame(event.answer, &response, &payload);
      if (!read.ok()) fail(read.ToString());
      payload.CopyTo(answers.data());
    }
  });
  return absl::OkStatus();
}

}  // namespace gatefold::bench

// Callers that speak HTTP/2 well enough to be let in, and then do what no client library does.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/internal/endian.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/inference/v1/model.grpc.pb.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/status.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using inference::v1::GetModelRequest;
using inference::v1::GetModelResponse;
using inference::v1::ModelService;

constexpr char kModelService[] = "gatefold.inference.v1.ModelService";

// One connection. Nothing is done for it behind its user's back but to answer pings.
class RawConnection {
 public:
  explicit RawConnection(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to = {};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(port));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    opened_ = connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
    SendBytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    SendFrame(kSettings, 0, 0, "");
  }
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;
  ~RawConnection() { close(fd_); }

  bool opened() const { return opened_; }

  // Opens a call, and says how long its request is.
  uint32_t Call(absl::string_view path, uint32_t message_bytes) {
    const uint32_t stream = next_stream_;
    next_stream_ += 2;
    std::string block;
    for (const auto& [name, value] :
         std::map<std::string, std::string>{{":authority", "x"},
                                            {":method", "POST"},
                                            {":path", std::string(path)},
                                            {":scheme", "http"},
                                            {"content-type", "application/grpc"},
                                            {"te", "trailers"}}) {
      block += absl::StrCat(std::string(1, '\0'), Short(name), Short(value));
    }
    SendFrame(kHeaders, kEndHeaders, stream, block);
    windows_[stream] = initial_window_;
    std::string prefix(5, '\0');
    absl::big_endian::Store32(prefix.data() + 1, message_bytes);
    Send(stream, prefix, false);
    return stream;
  }

  // A piece of a request, if the server will take it now: how much of it that was.
  size_t Send(uint32_t stream, const std::string& data, bool last) {
    const auto n = static_cast<int64_t>(data.size());
    if (n > std::min(windows_[stream], window_)) return 0;
    window_ -= n;
    windows_[stream] -= n;
    SendFrame(kData, last ? kEndStream : 0, stream, data);
    return data.size();
  }

  // Takes what has come, waiting a little for it. False: the connection is over.
  bool Receive(int wait_ms = 20) {
    pollfd waited = {fd_, POLLIN, 0};
    if (poll(&waited, 1, wait_ms) == 0) return true;
    char bytes[65536];
    const ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) return false;
    received_.append(bytes, static_cast<size_t>(n));
    while (received_.size() >= 9) {
      const auto* head = reinterpret_cast<const uint8_t*>(received_.data());
      const size_t length = head[0] << 16 | head[1] << 8 | head[2];
      if (received_.size() < 9 + length) break;
      Take(head[3], head[4], absl::big_endian::Load32(head + 5), received_.substr(9, length));
      received_.erase(0, 9 + length);
    }
    return true;
  }

  const std::set<uint32_t>& ended() const { return ended_; }

 private:
  enum Type { kData = 0, kHeaders = 1, kReset = 3, kSettings = 4, kPing = 6, kWindowUpdate = 8 };
  enum Flag { kEndStream = 1, kAck = 1, kEndHeaders = 4 };

  static std::string Short(const std::string& text) {
    return absl::StrCat(std::string(1, static_cast<char>(text.size())), text);
  }

  void Take(int type, int flags, uint32_t stream, const std::string& content) {
    if (type == kPing && (flags & kAck) == 0) SendFrame(kPing, kAck, 0, content);
    if (type == kReset || (type == kHeaders && (flags & kEndStream) != 0)) ended_.insert(stream);
    if (type == kWindowUpdate) {
      (stream == 0 ? window_ : windows_[stream]) += absl::big_endian::Load32(content.data());
    }
    if (type != kSettings || (flags & kAck) != 0) return;
    for (size_t i = 0; i + 6 <= content.size(); i += 6) {
      if (absl::big_endian::Load16(content.data() + i) != 4) continue;
      const int64_t window = absl::big_endian::Load32(content.data() + i + 2);
      for (auto& [id, each] : windows_) each += window - initial_window_;
      initial_window_ = window;
    }
    SendFrame(kSettings, kAck, 0, "");
  }

  void SendFrame(int type, int flags, uint32_t stream, const std::string& content) {
    std::string frame(9, '\0');
    absl::big_endian::Store32(frame.data(), static_cast<uint32_t>(content.size()) << 8);
    frame[3] = static_cast<char>(type);
    frame[4] = static_cast<char>(flags);
    absl::big_endian::Store32(frame.data() + 5, stream);
    SendBytes(frame + content);
  }
  void SendBytes(const std::string& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t n = send(fd_, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
      if (n <= 0) return;
      at += static_cast<size_t>(n);
    }
  }

  const int fd_;
  bool opened_ = false;
  uint32_t next_stream_ = 1;
  int64_t initial_window_ = 65535;
  int64_t window_ = 65535;
  std::map<uint32_t, int64_t> windows_;
  std::string received_;
  std::set<uint32_t> ended_;
};

class HostileClient : public ::testing::Test {
 protected:
  void Start(ServerOptions options) { server_ = Started(std::move(options)); }

  static std::unique_ptr<RpcServer> Started(ServerOptions options) {
    options.addresses = {"127.0.0.1:0"};
    auto server = std::make_unique<RpcServer>(options);
    AddUnary<GetModelRequest, GetModelResponse>(
        server.get(), kModelService, "GetModel",
        [](std::shared_ptr<CallContext>, const GetModelRequest& request,
           Respond<GetModelResponse> respond) {
          GetModelResponse response;
          response.mutable_model()->set_name(request.name());
          respond(response);
        });
    const absl::Status started = server->Start();
    EXPECT_TRUE(started.ok()) << started;
    return server;
  }

  // Of a caller who means no harm, on a connection of its own.
  absl::Status GetModel(size_t name_bytes) { return GetModel(*server_, name_bytes); }
  static absl::Status GetModel(const RpcServer& server, size_t name_bytes) {
    const auto channel = *MakeChannel(server.address(), ChannelKind::kBulk, ChannelOptions());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    GetModelRequest request;
    request.set_name(std::string(name_bytes, 'x'));
    GetModelResponse response;
    return FromGrpcStatus(ModelService::NewStub(channel)->GetModel(&context, request, &response));
  }

  std::unique_ptr<RpcServer> server_;
};

TEST_F(HostileClient, HalvesOfManyMessagesDoNotFillTheMemory) {
  ServerOptions options;
  options.max_unread_bytes = 16 << 20;
  Start(options);
  RawConnection hostile(server_->port());
  ASSERT_TRUE(hostile.Receive());
  constexpr size_t kMessage = 2 << 20;
  std::map<uint32_t, size_t> left;
  for (int i = 0; i < 64; ++i) {
    left[hostile.Call("/gatefold.inference.v1.ModelService/GetModel", kMessage)] = kMessage - 1;
  }
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  size_t unsent = 1;
  while (hostile.ended().empty() && unsent > 0 && absl::Now() < deadline) {
    unsent = 0;
    for (auto& [stream, bytes] : left) {
      bytes -= hostile.Send(stream, std::string(std::min<size_t>(bytes, 16384), 'x'), false);
      unsent += bytes;
    }
    if (!hostile.Receive()) break;
  }
  EXPECT_FALSE(hostile.ended().empty()) << "the server took 128 MiB";
  // Until there is room gRPC closes idle connections, as one that was just made, and ends calls
  // that come in, whosever they are.
  absl::Status other;
  do {
    other = GetModel(100);
  } while ((absl::IsUnavailable(other) || absl::IsResourceExhausted(other)) &&
           absl::Now() < deadline);
  EXPECT_TRUE(other.ok()) << other;
}

TEST_F(HostileClient, AnswersThatNobodyTakesDoNotFillTheMemory) {
  ServerOptions options;
  options.max_untaken_bytes = 8 << 20;
  Start(options);
  RawConnection hostile(server_->port());
  ASSERT_TRUE(hostile.Receive(20000));
  GetModelRequest request;
  request.set_name(std::string(3 << 20, 'x'));  // and the answer is as long
  const std::string message = request.SerializeAsString();
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  std::vector<uint32_t> calls;
  for (int i = 0; i < 3; ++i) {
    calls.push_back(hostile.Call("/gatefold.inference.v1.ModelService/GetModel",
                                 static_cast<uint32_t>(message.size())));
    for (size_t at = 0; at < message.size() && absl::Now() < deadline;) {
      at += hostile.Send(calls.back(), message.substr(at, 16384), at + 16384 >= message.size());
      ASSERT_TRUE(hostile.Receive(0));
    }
  }
  while (hostile.ended().empty() && absl::Now() < deadline) ASSERT_TRUE(hostile.Receive());
  EXPECT_EQ(hostile.ended(), std::set<uint32_t>{calls[0]});
  const absl::Status other = GetModel(3 << 20);
  EXPECT_TRUE(other.ok()) << other;
}

// Few descriptors, of which this process has both ends of each connection.
class FewDescriptors {
 public:
  explicit FewDescriptors(rlim_t n) {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit few = before_;
    few.rlim_cur = n;
    setrlimit(RLIMIT_NOFILE, &few);
  }
  ~FewDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_;
};

TEST_F(HostileClient, IsListenedToAgainOnceThereAreDescriptors) {
  Start({});
  const FewDescriptors few(256);
  {
    std::vector<std::unique_ptr<RawConnection>> all;
    while (all.empty() || all.back()->opened()) {
      all.push_back(std::make_unique<RawConnection>(server_->port()));
    }
    absl::SleepFor(absl::Milliseconds(50));  // some are in the server's queue, and cannot be taken
  }
  const absl::Status after = GetModel(100);
  EXPECT_TRUE(after.ok()) << after;
}

TEST_F(HostileClient, LeavesDescriptorsToProbes) {
  Start({});
  ServerOptions options;
  options.for_probes = true;
  const auto probes = Started(options);
  const FewDescriptors few(256);
  std::vector<std::unique_ptr<RawConnection>> all;
  do {
    all.push_back(std::make_unique<RawConnection>(server_->port()));
    ASSERT_TRUE(all.back()->opened());
  } while (all.back()->Receive(20000));
  EXPECT_EQ(GetModel(*server_, 100).code(), absl::StatusCode::kUnavailable);
  const absl::Status probed = GetModel(*probes, 100);
  EXPECT_TRUE(probed.ok()) << probed;
}

}  // namespace
}  // namespace gatefold

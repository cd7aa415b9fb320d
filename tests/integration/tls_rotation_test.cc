// Certificates that change under a server. With real time: gRPC looks at them once a second.

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "gatefold/inference/v1/model.grpc.pb.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/status.h"
#include "gatefold/rpc/test_certificates.h"
#include "gtest/gtest.h"
#include "tests/integration/process.h"

namespace gatefold {
namespace {

using inference::v1::GetModelRequest;
using inference::v1::GetModelResponse;
using inference::v1::ModelService;

class TlsRotationTest : public ::testing::Test {
 protected:
  void SetUp() override {
    WriteTestFile(Path("ca.crt"), ca_.cert_pem(), 0644);
    ca_.Issue("server").Write(folder_.Path("."), "server");
    ca_.Issue("client").Write(folder_.Path("."), "client");
  }

  std::string Path(const std::string& name) const { return folder_.Path(name); }

  // "": none of them.
  TlsOptions Files(const std::string& identity, const std::string& ca) const {
    TlsOptions options;
    if (!identity.empty()) {
      options.cert_file = Path(identity + ".crt");
      options.key_file = Path(identity + ".key");
    }
    if (!ca.empty()) options.ca_file = Path(ca + ".crt");
    return options;
  }

  void Serve(const TlsOptions& files) {
    auto security = TransportSecurity::ForServer(files);
    ASSERT_TRUE(security.ok()) << security.status();
    ServerOptions options;
    options.addresses = {"127.0.0.1:0"};
    options.security = *security;
    server_ = std::make_unique<RpcServer>(options);
    AddUnary<GetModelRequest, GetModelResponse>(
        server_.get(), "gatefold.inference.v1.ModelService", "GetModel",
        [](std::shared_ptr<CallContext>, const GetModelRequest& request,
           Respond<GetModelResponse> respond) {
          GetModelResponse response;
          response.mutable_model()->set_name(request.name());
          respond(response);
        });
    const absl::Status started = server_->Start();
    ASSERT_TRUE(started.ok()) << started;
  }

  absl::Status Call(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
    GetModelRequest request;
    GetModelResponse response;
    return FromGrpcStatus(ModelService::NewStub(channel)->GetModel(&context, request, &response));
  }

  std::shared_ptr<grpc::Channel> Channel(const TlsOptions& files) {
    ChannelOptions options;
    auto security = TransportSecurity::ForClient(files);
    EXPECT_TRUE(security.ok()) << security.status();
    if (security.ok()) options.security = *security;
    return *MakeChannel(server_->address(), ChannelKind::kDecode, options);
  }
  absl::Status CallWith(const TlsOptions& files) { return Call(Channel(files)); }

  const TestCa ca_{"cluster"};
  TemporaryFolder folder_;
  std::unique_ptr<RpcServer> server_;
};

// A new connection each time, all the while the files change under the server: first what is
// broken, which must change nothing, then another certificate of another CA.
TEST_F(TlsRotationTest, BrokenFilesChangeNothingAndNewOnesAreUsedWithoutALostCall) {
  const TestCa next("next");
  WriteTestFile(Path("both.crt"), ca_.cert_pem() + next.cert_pem(), 0644);
  WriteTestFile(Path("next.crt"), next.cert_pem(), 0644);
  Serve(Files("server", "both"));
  ASSERT_FALSE(CallWith(Files("client", "next")).ok());
  const auto open = Channel(Files("client", "both"));
  std::atomic<bool> stop = false;
  std::atomic<int> n_calls = 0;
  std::thread load([&] {
    while (!stop) {
      const absl::Status old_channel = Call(open);
      EXPECT_TRUE(old_channel.ok()) << old_channel;
      const absl::Status new_channel = CallWith(Files("client", "both"));
      EXPECT_TRUE(new_channel.ok()) << new_channel;
      ++n_calls;
      absl::SleepFor(absl::Milliseconds(10));
    }
  });
  WriteTestFile(Path("server.crt"), "half a file", 0644);
  absl::SleepFor(absl::Milliseconds(2500));  // longer than it takes to be used
  EXPECT_FALSE(CallWith(Files("client", "next")).ok());
  next.Issue("server").Write(folder_.Path("."), "server");
  absl::Status changed;
  const absl::Time limit = absl::Now() + absl::Seconds(20);
  do {
    absl::SleepFor(absl::Milliseconds(20));
    changed = CallWith(Files("client", "next"));
  } while (!changed.ok() && absl::Now() < limit);
  EXPECT_TRUE(changed.ok()) << changed;
  stop = true;
  load.join();
  EXPECT_GT(n_calls, 3);
}

}  // namespace
}  // namespace gatefold

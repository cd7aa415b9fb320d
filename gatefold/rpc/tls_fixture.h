#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/inference/v1/model.grpc.pb.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/status.h"
#include "gatefold/rpc/test_certificates.h"
#include "gtest/gtest.h"

namespace gatefold {

// A server with TLS and clients of it. Their files are in a folder of the test's own: at first the
// CA as ca.crt, and its "server" and "client".
class TlsFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/gatefold_tls_XXXXXX";
    ASSERT_NE(mkdtemp(folder_.data()), nullptr);
    WriteTestFile(Path("ca.crt"), ca_.cert_pem(), 0644);
    ca_.Issue("server").Write(folder_, "server");
    ca_.Issue("client").Write(folder_, "client");
  }

  std::string Path(const std::string& name) const { return absl::StrCat(folder_, "/", name); }

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

  void Serve(const TlsOptions& files, const std::string& address = "127.0.0.1:0") {
    auto security = TransportSecurity::ForServer(files);
    ASSERT_TRUE(security.ok()) << security.status();
    ServerOptions options;
    options.addresses = {address};
    options.security = *security;
    options.authorize = security->PeerCheck();
    server_ = std::make_unique<RpcServer>(options);
    AddUnary<inference::v1::GetModelRequest, inference::v1::GetModelResponse>(
        server_.get(), "gatefold.inference.v1.ModelService", "GetModel",
        [](std::shared_ptr<CallContext>, const inference::v1::GetModelRequest& request,
           Respond<inference::v1::GetModelResponse> respond) {
          inference::v1::GetModelResponse response;
          response.mutable_model()->set_name(request.name());
          respond(response);
        });
    const absl::Status started = server_->Start();
    ASSERT_TRUE(started.ok()) << started;
  }

  absl::Status Call(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
    inference::v1::GetModelRequest request;
    inference::v1::GetModelResponse response;
    const auto stub = inference::v1::ModelService::NewStub(channel);
    return FromGrpcStatus(stub->GetModel(&context, request, &response));
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
  std::string folder_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace gatefold

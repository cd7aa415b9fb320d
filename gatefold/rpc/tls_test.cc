// Who may connect to whom, with certificates made here.

#include "gatefold/rpc/tls.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/server_builder.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/small_file.h"
#include "gatefold/inference/v1/model.grpc.pb.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/pem.h"
#include "gatefold/rpc/published_file.h"
#include "gatefold/rpc/test_certificates.h"
#include "gatefold/rpc/tls_fixture.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using inference::v1::ModelService;
using ::testing::HasSubstr;

class TlsTest : public TlsFixture {
 protected:
  void SetUp() override {
    TlsFixture::SetUp();
    WriteTestFile(Path("other-ca.crt"), other_ca_.cert_pem(), 0644);
  }

  const TestCa other_ca_{"stranger"};
};

TEST_F(TlsTest, ServesThoseWhoTrustItsCertificate) {
  Serve(Files("server", ""));
  EXPECT_TRUE(CallWith(Files("", "ca")).ok());
  EXPECT_TRUE(CallWith(Files("client", "ca")).ok());  // a certificate that nobody asked for
}

TEST_F(TlsTest, AClientRefusesAServerOfAnotherCa) {
  Serve(Files("server", ""));
  const absl::Status status = CallWith(Files("", "other-ca"));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

TEST_F(TlsTest, AClientRefusesAServerByAnotherName) {
  Serve(Files("server", ""));
  TlsOptions files = Files("", "ca");
  files.server_name = "expert.gatefold";
  EXPECT_EQ(CallWith(files).code(), absl::StatusCode::kUnavailable);
  server_.reset();
  ca_.Issue("server", {"expert.gatefold"}).Write(folder_, "expert");
  Serve(Files("expert", ""));
  const absl::Status named = CallWith(files);
  EXPECT_TRUE(named.ok()) << named;
}

TEST_F(TlsTest, AMutualServerTakesOnlyCertificatesOfItsCa) {
  Serve(Files("server", "ca"));
  const absl::Status good = CallWith(Files("client", "ca"));
  EXPECT_TRUE(good.ok()) << good;
  EXPECT_EQ(CallWith(Files("", "ca")).code(), absl::StatusCode::kUnavailable);
  other_ca_.Issue("client").Write(folder_, "stranger");
  EXPECT_EQ(CallWith(Files("stranger", "ca")).code(), absl::StatusCode::kUnavailable);
}

TEST_F(TlsTest, AServerMayAskForANameBesides) {
  TlsOptions files = Files("server", "ca");
  files.peer_name = "router.gatefold";
  Serve(files);
  EXPECT_EQ(CallWith(Files("client", "ca")).code(), absl::StatusCode::kPermissionDenied);
  ca_.Issue("router", {"router.gatefold"}).Write(folder_, "router");
  const absl::Status router = CallWith(Files("router", "ca"));
  EXPECT_TRUE(router.ok()) << router;
  files.ca_file.clear();
  EXPECT_THAT(std::string(TransportSecurity::ForServer(files).status().message()),
              HasSubstr("--tls-peer-name needs --tls-ca-file"));
}

// Past our own checks, which would not let a client or a server start with it.
TEST_F(TlsTest, ExpiredCertificatesAreRefusedOnBothSides) {
  const TestIdentity expired = ca_.Issue("late", {}, absl::Now() - absl::Hours(1));
  Serve(Files("server", "ca"));
  grpc::SslCredentialsOptions client;
  client.pem_root_certs = ca_.cert_pem();
  client.pem_cert_chain = expired.cert_pem;
  client.pem_private_key = expired.key_pem;
  EXPECT_EQ(Call(grpc::CreateChannel(server_->address(), grpc::SslCredentials(client))).code(),
            absl::StatusCode::kUnavailable);

  grpc::SslServerCredentialsOptions options;
  options.pem_key_cert_pairs.push_back({expired.key_pem, expired.cert_pem});
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::SslServerCredentials(options), &port);
  ModelService::Service service;
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  ChannelOptions channel;
  channel.security = *TransportSecurity::ForClient(Files("", "ca"));
  EXPECT_EQ(
      Call(*MakeChannel(absl::StrCat("127.0.0.1:", port), ChannelKind::kDecode, channel)).code(),
      absl::StatusCode::kUnavailable);
}

TEST_F(TlsTest, PlaintextAndTlsDoNotMixAndFailCleanly) {
  Serve(Files("server", ""));
  EXPECT_EQ(CallWith({}).code(), absl::StatusCode::kUnavailable);
  server_.reset();
  Serve({});
  EXPECT_EQ(CallWith(Files("", "ca")).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(CallWith({}).ok());
}

TEST_F(TlsTest, SocketsOfThisHostStayPlaintext) {
  TlsOptions files = Files("server", "ca");
  files.peer_name = "router.gatefold";
  Serve(files, absl::StrCat("unix:", folder_, "/socket"));
  EXPECT_TRUE(CallWith({}).ok());
  EXPECT_TRUE(CallWith(Files("client", "ca")).ok());
}

TEST_F(TlsTest, RefusesFilesThatCannotWork) {
  const auto refusal = [](const TlsOptions& options) {
    return std::string(TransportSecurity::ForServer(options).status().message());
  };
  TlsOptions files = Files("server", "");
  files.key_file.clear();
  EXPECT_THAT(refusal(files), HasSubstr("--tls-cert-file is given without --tls-key-file"));
  EXPECT_THAT(refusal(Files("", "ca")), HasSubstr("--tls-cert-file"));
  files.key_file = Path("client.key");
  EXPECT_THAT(refusal(files), HasSubstr("client.key: the key is not that of the certificate"));
  files.cert_file = Path("none.crt");
  EXPECT_THAT(refusal(files), HasSubstr("none.crt"));
  ca_.Issue("late", {}, absl::Now() - absl::Hours(1)).Write(folder_, "late");
  EXPECT_THAT(refusal(Files("late", "")), HasSubstr("CN = late expired at"));
  const absl::Time now = absl::Now();
  ca_.Issue("early", {}, now + absl::Hours(2), now + absl::Hours(1)).Write(folder_, "early");
  EXPECT_THAT(refusal(Files("early", "")), HasSubstr("CN = early is not valid before"));
  WriteTestFile(Path("noise.crt"), "noise");
  EXPECT_THAT(refusal(Files("server", "noise")), HasSubstr("noise.crt: the CA file holds no"));
  EXPECT_THAT(std::string(TransportSecurity::ForClient(Files("client", "")).status().message()),
              HasSubstr("--tls-ca-file is missing"));
}

// Peers would refuse it until then, by the same clock.
TEST_F(TlsTest, UsesTheOldCertificateUntilTheNewOneIsValid) {
  const TransportSecurity security = *TransportSecurity::ForServer(Files("server", ""));
  const absl::Time old_end = security.not_after();
  const absl::Time valid = absl::Now() + absl::Seconds(3);
  ca_.Issue("server", {}, absl::Now() + absl::Hours(12), valid).Write(folder_, "server");
  const absl::Time limit = absl::Now() + absl::Seconds(60);
  while (security.not_after() == old_end && absl::Now() < limit)
    absl::SleepFor(absl::Milliseconds(5));
  EXPECT_NE(security.not_after(), old_end);
  EXPECT_GE(absl::Now(), absl::FromTimeT(absl::ToTimeT(valid)));  // certificates know seconds
}

// Who copies a bundle or a chain over another may have come to any byte of it when it is read.
TEST_F(TlsTest, RefusesFilesThatEndInTheMiddleOfALaterCertificate) {
  const std::string& next = other_ca_.cert_pem();
  WriteTestFile(Path("both.crt"), ca_.cert_pem() + next);
  WriteTestFile(Path("cut.crt"), ca_.cert_pem() + next.substr(0, next.size() / 2));
  EXPECT_TRUE(TransportSecurity::ForServer(Files("server", "both")).ok());
  EXPECT_THAT(std::string(TransportSecurity::ForServer(Files("server", "cut")).status().message()),
              HasSubstr("cut.crt: certificate 2 of the CA file is broken or cut off"));
  const TestIdentity server = ca_.Issue("server");
  const auto write_chain = [&](const std::string& issuer) {
    TestIdentity{server.cert_pem + issuer, server.key_pem}.Write(folder_, "chain");
  };
  write_chain(ca_.cert_pem());
  EXPECT_TRUE(TransportSecurity::ForServer(Files("chain", "ca")).ok());
  write_chain(ca_.cert_pem().substr(0, ca_.cert_pem().size() / 2));
  EXPECT_THAT(std::string(TransportSecurity::ForServer(Files("chain", "ca")).status().message()),
              HasSubstr("certificate 2 of the certificate file is broken or cut off"));
}

TEST_F(TlsTest, RefusesAKeyThatOthersCanRead) {
  ASSERT_EQ(chmod(Path("server.key").c_str(), 0644), 0);
  const absl::Status status = TransportSecurity::ForServer(Files("server", "")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("server.key"));
}

TEST(PublishedFileTest, ReplacesItsContentsInOnePiece) {
  PublishedFile file;
  ASSERT_TRUE(file.Publish("first").ok());
  const std::string path = file.path();
  std::ifstream opened(path);
  ASSERT_TRUE(file.Publish("second, longer").ok());
  EXPECT_EQ(file.path(), path);
  EXPECT_EQ(*ReadSmallFile(path, 100), "second, longer");
  std::string before;
  std::getline(opened, before);
  EXPECT_EQ(before, "first");
  ASSERT_TRUE(file.Publish("3").ok());
  EXPECT_EQ(*ReadSmallFile(path, 100), "3");
}

}  // namespace
}  // namespace gatefold

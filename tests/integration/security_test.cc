// A cluster with mutual TLS on every hop and API keys in front: who is let in, who is not, and that
// certificates and keys are exchanged under a running stream.

#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "cli/command.h"
#include "gatefold/base/errors.h"
#include "gatefold/checkpoint/temp_dir.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "gatefold/internal/v1/expert.grpc.pb.h"
#include "gatefold/model/model_manifest.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/status.h"
#include "gatefold/rpc/test_certificates.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "router-service/gateway/api_keys.h"
#include "tests/integration/client.h"
#include "tests/integration/metrics_page.h"
#include "tests/integration/process.h"
#include "tests/integration/shape.h"

namespace gatefold {
namespace {

constexpr char kModel[] = "models/gatefold-tiny-moe";
constexpr char kPrompt[] = "nobody may find this prompt in a log";
constexpr absl::Duration kLimit = absl::Seconds(60);

struct Streamed {
  std::vector<int32_t> tokens;
  absl::Status status;
};

class SecurityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    WriteTestFile(folder_.Path("ca.crt"), ca_.cert_pem(), 0644);
    WriteTestFile(folder_.Path("next-ca.crt"), next_ca_.cert_pem(), 0644);
    WriteIdentities(ca_);
    ca_.Issue("client").Write(folder_.Path("."), "client");
    WriteKeys({"alice", "ops admin", "poor tokens_per_minute=40", "gone revoked"});
    const std::vector<std::string> common = {absl::StrCat("--model=", kModel), "--threads=1",
                                             "--metrics-port=-1"};
    const auto with = [&](std::vector<std::string> more, const std::string& name, int port = 0) {
      more.push_back(absl::StrCat("--listen=127.0.0.1:", port));
      more.insert(more.end(), common.begin(), common.end());
      more.push_back(absl::StrCat("--tls-cert-file=", folder_.Path(name + ".crt")));
      more.push_back(absl::StrCat("--tls-key-file=", folder_.Path(name + ".key")));
      return more;
    };
    const std::string ca = absl::StrCat("--tls-ca-file=", folder_.Path("ca.crt"));
    // It will start again, where the router looks for it.
    Start("expert-service",
          with({ca, "--tls-peer-name=worker.gatefold", "--tls-server-name=shard.gatefold"},
               "expert", FreePort()),
          &expert_, &expert_address_);
    Start("attention-service", with({ca, "--kv-memory=64MiB"}, "attention"), &attention_,
          &attention_address_);
    ASSERT_FALSE(HasFatalFailure());
    Start("router-service",
          with({absl::StrCat("--experts=", expert_address_),
                absl::StrCat("--attention=", attention_address_),
                absl::StrCat("--api-keys-file=", folder_.Path("keys")),
                absl::StrCat("--admin-listen=", admin_address_),
                absl::StrCat("--worker-tls-ca-file=", folder_.Path("ca.crt")),
                absl::StrCat("--worker-tls-cert-file=", folder_.Path("router.crt")),
                absl::StrCat("--worker-tls-key-file=", folder_.Path("router.key")),
                "--worker-tls-server-name=worker.gatefold"},
               "router"),
          &router_, &router_address_);
  }

  void TearDown() override {
    for (const auto* process : {router_.get(), attention_.get(), expert_.get()}) {
      if (process == nullptr) continue;
      EXPECT_FALSE(absl::StrContains(process->Log(), "may find this"));
      EXPECT_FALSE(absl::StrContains(process->Log(), "key-of-"));
      EXPECT_FALSE(absl::StrContains(process->Log(), "PRIVATE KEY"));
      if (HasFailure()) ADD_FAILURE() << process->Log();
    }
  }

  static int FreePort() {
    ServerOptions options;
    options.addresses = {"127.0.0.1:0"};
    RpcServer server(options);
    EXPECT_TRUE(server.Start().ok());
    return server.port();
  }

  void WriteIdentities(const TestCa& ca) {
    for (const char* name : {"router", "attention"}) {
      ca.Issue(name, {"worker.gatefold"}).Write(folder_.Path("."), name);
    }
    ca.Issue("expert", {"worker.gatefold", "shard.gatefold"}).Write(folder_.Path("."), "expert");
  }

  // Each "NAME [properties]"; the key of NAME is key-of-NAME.
  void WriteKeys(const std::vector<std::string>& keys) {
    std::string text;
    for (const std::string& line : keys) {
      const std::pair<std::string, std::string> parts =
          absl::StrSplit(line, absl::MaxSplits(' ', 1));
      ApiKey key;
      key.name = parts.first;
      key.hash = HashApiKey("key-of-" + key.name);
      absl::StrAppend(&text, FormatApiKey(key), " ", parts.second, "\n");
    }
    WriteTestFile(folder_.Path("keys"), text);
  }

  void Start(const std::string& program, const std::vector<std::string>& arguments,
             std::unique_ptr<Process>* process, std::string* address) {
    auto started = Process::Start(program, arguments, folder_.Path(program + ".log"));
    ASSERT_TRUE(started.ok()) << started.status();
    *process = *std::move(started);
    const auto line = (*process)->AwaitLine("listening on ", absl::Now() + kLimit);
    ASSERT_TRUE(line.ok()) << line.status();
    *address = std::vector<std::string>(absl::StrSplit(*line, ' '))[2];
  }

  std::shared_ptr<grpc::Channel> Channel(const std::string& address, const std::string& ca,
                                         const std::string& identity = "") {
    ChannelOptions options;
    TlsOptions tls;
    if (!ca.empty()) tls.ca_file = folder_.Path(ca + ".crt");
    if (!identity.empty()) {
      tls.cert_file = folder_.Path(identity + ".crt");
      tls.key_file = folder_.Path(identity + ".key");
    }
    options.security = *TransportSecurity::ForClient(tls);
    return *MakeChannel(address, ChannelKind::kDecode, options);
  }

  static void Prepare(grpc::ClientContext* context, const std::string& key) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + kLimit));
    if (!key.empty()) context->AddMetadata("authorization", "Bearer " + key);
  }

  Streamed Stream(const std::shared_ptr<grpc::Channel>& channel, const std::string& key,
                  int n_tokens, const std::function<void()>& midway = nullptr) {
    inference::v1::StreamGenerateTextRequest request;
    auto* generate = request.mutable_request();
    for (const int token : {1, 5, 9, 20}) {
      generate->mutable_prompt()->mutable_token_ids()->add_ids(token);
    }
    generate->mutable_config()->set_max_output_tokens(n_tokens);
    generate->mutable_config()->set_temperature(1);
    generate->mutable_config()->set_seed(7);
    generate->mutable_config()->set_ignore_eos(true);
    generate->mutable_output()->set_token_ids(true);
    grpc::ClientContext context;
    Prepare(&context, key);
    auto stream =
        inference::v1::InferenceService::NewStub(channel)->StreamGenerateText(&context, request);
    Streamed streamed;
    inference::v1::StreamGenerateTextResponse event;
    bool told = midway == nullptr;
    while (stream->Read(&event)) {
      const auto& ids = event.delta().token_ids();
      streamed.tokens.insert(streamed.tokens.end(), ids.begin(), ids.end());
      if (!told && streamed.tokens.size() >= 10) {
        told = true;
        midway();
      }
    }
    streamed.status = FromGrpcStatus(stream->Finish());
    return streamed;
  }

  // Of the router, with a text prompt that may not come to light.
  absl::Status Generate(const std::shared_ptr<grpc::Channel>& channel, const std::string& key) {
    inference::v1::GenerateTextRequest request;
    request.mutable_prompt()->set_text(kPrompt);
    request.mutable_config()->set_max_output_tokens(2);
    grpc::ClientContext context;
    Prepare(&context, key);
    inference::v1::GenerateTextResponse response;
    return FromGrpcStatus(inference::v1::InferenceService::NewStub(channel)->GenerateText(
        &context, request, &response));
  }

  absl::Status Count(const std::shared_ptr<grpc::Channel>& channel,
                     const inference::v1::CountTokensRequest& request) {
    grpc::ClientContext context;
    Prepare(&context, "key-of-alice");
    inference::v1::CountTokensResponse response;
    return FromGrpcStatus(inference::v1::InferenceService::NewStub(channel)->CountTokens(
        &context, request, &response));
  }

  // The most that the router has ever had.
  int64_t PeakMemoryBytes() {
    std::ifstream file(absl::StrCat("/proc/", router_->pid(), "/status"));
    for (std::string line; std::getline(file, line);) {
      int64_t kib = 0;
      if (sscanf(line.c_str(), "VmHWM: %" SCNd64 " kB", &kib) == 1) return kib << 10;
    }
    ADD_FAILURE() << "no VmHWM";
    return 0;
  }

  absl::Status DescribeExpert(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    Prepare(&context, "");
    internal::v1::ExpertServiceDescribeResponse response;
    auto stub = internal::v1::ExpertService::NewStub(channel);
    return FromGrpcStatus(stub->Describe(&context, {}, &response));
  }

  const TestCa ca_{"cluster"};
  const TestCa next_ca_{"next cluster"};
  TemporaryFolder folder_;
  std::unique_ptr<Process> expert_, attention_, router_;
  std::string expert_address_, attention_address_, router_address_;
  const std::string admin_address_ = absl::StrCat("127.0.0.1:", FreePort());
};

TEST_F(SecurityTest, LetsInWhoHasAKeyAndNobodyElse) {
  const auto router = Channel(router_address_, "ca");
  EXPECT_EQ(Generate(router, "").code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Generate(router, "key-of-bob").code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Generate(router, "key-of-gone").code(), absl::StatusCode::kPermissionDenied);
  const absl::Status alice = Generate(router, "key-of-alice");
  EXPECT_TRUE(alice.ok()) << alice;
  const Streamed limited = Stream(router, "key-of-poor", 36);
  EXPECT_TRUE(limited.status.ok()) << limited.status;
  const absl::Status spent = Stream(router, "key-of-poor", 36).status;
  EXPECT_EQ(spent.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(spent), "RATE_LIMITED");
  EXPECT_GT(RetryDelayOf(spent), absl::Seconds(1));

  cluster::v1::GetClusterResponse cluster;
  grpc::ClientContext no_key;
  EXPECT_EQ(
      cluster::v1::ClusterService::NewStub(router)->GetCluster(&no_key, {}, &cluster).error_code(),
      grpc::StatusCode::UNAUTHENTICATED);
  grpc::ClientContext with_key;
  Prepare(&with_key, "key-of-alice");
  EXPECT_TRUE(
      cluster::v1::ClusterService::NewStub(router)->GetCluster(&with_key, {}, &cluster).ok());
  grpc::ClientContext no_admin;
  Prepare(&no_admin, "key-of-alice");
  cluster::v1::CancelGenerationResponse cancelled;
  EXPECT_EQ(cluster::v1::AdminService::NewStub(router)
                ->CancelGeneration(&no_admin, {}, &cancelled)
                .error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
  grpc::ClientContext probe;
  grpc::health::v1::HealthCheckResponse health;
  EXPECT_TRUE(grpc::health::v1::Health::NewStub(router)->Check(&probe, {}, &health).ok());

  EXPECT_EQ(Generate(Channel(router_address_, ""), "key-of-alice").code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(Generate(Channel(router_address_, "next-ca"), "key-of-alice").code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(SecurityTest, HugeRequestsAreTheCallersFaultAndTakeLittleMemory) {
  const auto router = Channel(router_address_, "ca");
  EXPECT_TRUE(Generate(router, "key-of-alice").ok());
  const int64_t before = PeakMemoryBytes();
  inference::v1::CountTokensRequest text, messages;
  text.mutable_prompt()->set_text(std::string(15'000'000, 'x'));
  for (int i = 0; i < 7'500'000; ++i) {  // of two bytes
    messages.mutable_prompt()->mutable_conversation()->add_messages();
  }
  for (const auto* request : {&text, &messages}) {
    const absl::Status status = Count(router, *request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("the limit is"));
  }
  // What came in, and no message made of it: that would take half a gigabyte.
  EXPECT_LT(PeakMemoryBytes() - before, 150'000'000);
  EXPECT_TRUE(Generate(router, "key-of-alice").ok());
}

TEST_F(SecurityTest, WorkersAnswerOnlyTheCluster) {
  EXPECT_EQ(DescribeExpert(Channel(expert_address_, "")).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(DescribeExpert(Channel(expert_address_, "ca")).code(), absl::StatusCode::kUnavailable);
  next_ca_.Issue("stranger").Write(folder_.Path("."), "stranger");
  EXPECT_EQ(DescribeExpert(Channel(expert_address_, "ca", "stranger")).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(DescribeExpert(Channel(expert_address_, "ca", "client")).code(),
            absl::StatusCode::kPermissionDenied);  // of the CA, and by another name
  const absl::Status member = DescribeExpert(Channel(expert_address_, "ca", "router"));
  EXPECT_TRUE(member.ok()) << member;
}

// The operators' verbs speak TLS and show a key as those that generate do.
TEST_F(SecurityTest, OperatorsVerbsSpeakTlsAndShowAKey) {
  const auto run = [&](std::vector<std::string> arguments, const std::string& address,
                       const std::string& key) {
    arguments.push_back("--router=" + address);
    arguments.push_back("--tls-ca-file=" + folder_.Path("ca.crt"));
    arguments.push_back("--tls-server-name=worker.gatefold");
    std::istringstream in;
    std::ostringstream out, err;
    cli::Interrupts interrupts;
    cli::Console console{in, out, err, false, &interrupts};
    const int code = cli::RunCommand(arguments, {{"GATEFOLD_API_KEY", key}}, &console);
    return absl::StrCat(code, " ", out.str(), err.str());
  };
  using ::testing::HasSubstr;
  using ::testing::StartsWith;
  EXPECT_THAT(run({"top", "--once", "--interval=100ms"}, router_address_, "key-of-alice"),
              StartsWith("0 "));
  EXPECT_THAT(run({"top", "--once", "--interval=100ms"}, router_address_, ""),
              HasSubstr("an API key is needed"));
  EXPECT_THAT(run({"drain", expert_address_, "--wait=1ms"}, admin_address_, "key-of-alice"),
              HasSubstr("admin"));
  EXPECT_THAT(run({"drain", expert_address_, "--wait=1ms"}, admin_address_, "key-of-ops"),
              HasSubstr("experts that no other shard serves"));
  EXPECT_THAT(run({"resume", expert_address_}, admin_address_, "key-of-ops"), StartsWith("0 "));

  // A trace is its caller's, and the operators'.
  EXPECT_THAT(run({"generate", "--tokens=1,5", "--max-tokens=2", "--request-id=secret"},
                  router_address_, "key-of-alice"),
              StartsWith("0 "));
  EXPECT_THAT(run({"trace", "secret"}, router_address_, "key-of-alice"), StartsWith("0 "));
  EXPECT_THAT(run({"trace", "secret"}, router_address_, "key-of-poor"),
              HasSubstr("no generation with this request_id"));
  EXPECT_THAT(run({"trace", "secret"}, admin_address_, "key-of-ops"), StartsWith("0 "));
}

TEST_F(SecurityTest, APlannerTellsWhenItsCertificatesExpire) {
  std::unique_ptr<Process> planner;
  std::string address;
  Start("router-service",
        {absl::StrCat("--model=", kModel), "--planner=only", "--admin-listen=127.0.0.1:0",
         absl::StrCat("--experts=", expert_address_),
         absl::StrCat("--tls-cert-file=", folder_.Path("router.crt")),
         absl::StrCat("--tls-key-file=", folder_.Path("router.key")),
         absl::StrCat("--worker-tls-ca-file=", folder_.Path("ca.crt")),
         absl::StrCat("--worker-tls-cert-file=", folder_.Path("router.crt")),
         absl::StrCat("--worker-tls-key-file=", folder_.Path("router.key")),
         "--worker-tls-server-name=worker.gatefold"},
        &planner, &address);
  ASSERT_NE(planner, nullptr);
  const auto page = MetricsPage::Fetch(planner.get());
  ASSERT_TRUE(page.ok()) << page.status();
  for (const char* use : {"workers", "listen"}) {
    EXPECT_GT(
        page->Value(absl::StrCat("gatefold_tls_certificate_expiry_seconds{use=\"", use, "\"}")),
        absl::ToUnixSeconds(absl::Now()))
        << use;
  }
}

// A shard without weights, by whatever certificate, that is told to load one expert from expert_.
TEST_F(SecurityTest, ShardsGiveExpertsToShardsAlone) {
  const TempDir folder;
  std::filesystem::copy_file(absl::StrCat(kModel, "/config.json"), folder.File("config.json"));
  const auto weights = *ModelWeights::Open(kModel);
  folder.Write(kManifestFile, ModelManifest::Make(*weights, nullptr)->ToJson(weights->config()));
  const auto log_after_assign = [&](const std::string& identity, const std::string& event) {
    std::unique_ptr<Process> shard;
    std::string address;
    Start("expert-service",
          {absl::StrCat("--model=", folder.path()), "--threads=1", "--metrics-port=-1",
           "--experts=none", "--listen=127.0.0.1:0",
           absl::StrCat("--tls-ca-file=", folder_.Path("ca.crt")),
           absl::StrCat("--tls-cert-file=", folder_.Path(identity + ".crt")),
           absl::StrCat("--tls-key-file=", folder_.Path(identity + ".key")),
           "--tls-server-name=shard.gatefold"},
          &shard, &address);
    if (shard == nullptr) return std::string();
    internal::v1::AssignRequest request;
    request.set_epoch(1);
    request.add_experts()->set_n_experts(1);
    request.add_holders()->set_address(expert_address_);
    *request.mutable_holders(0)->add_experts() = request.experts(0);
    grpc::ClientContext context;
    Prepare(&context, "");
    internal::v1::AssignResponse response;
    const absl::Status assigned =
        FromGrpcStatus(internal::v1::ExpertService::NewStub(Channel(address, "ca", "router"))
                           ->Assign(&context, request, &response));
    EXPECT_TRUE(assigned.ok()) << assigned;
    const absl::Time limit = absl::Now() + kLimit;
    while (!absl::StrContains(shard->Log(), event) && absl::Now() < limit) {
      absl::SleepFor(absl::Milliseconds(20));
    }
    return shard->Log();
  };
  ca_.Issue("shard", {"shard.gatefold"}).Write(folder_.Path("."), "shard");
  EXPECT_THAT(log_after_assign("shard", "experts_loaded"), testing::HasSubstr("experts_loaded"));
  // A member of the cluster that is no shard.
  EXPECT_THAT(log_after_assign("client", "expert_not_fetched"),
              testing::HasSubstr(
                  "because=refused error=\"the peer's certificate is not for worker.gatefold"));
  // And a shard may fetch experts, but not call as a router does.
  EXPECT_EQ(DescribeExpert(Channel(expert_address_, "ca", "shard")).code(),
            absl::StatusCode::kPermissionDenied);
}

// Certificates of another CA, an expert that starts again with them, and a key that is revoked, all
// in the middle of streams; the tokens are those of the quiet run.
TEST_F(SecurityTest, ChangesCertificatesAndKeysUnderLoadAndLosesNothing) {
  const auto router = Channel(router_address_, "ca");
  const Streamed quiet = Stream(router, "key-of-alice", 300);
  ASSERT_TRUE(quiet.status.ok()) << quiet.status;
  std::atomic<bool> stop = false;
  std::atomic<int> n_streams = 0;
  std::thread load([&] {
    while (!stop) {
      const Streamed streamed = Stream(router, "key-of-alice", 300);
      EXPECT_TRUE(streamed.status.ok()) << streamed.status;
      EXPECT_EQ(streamed.tokens, quiet.tokens);
      ++n_streams;
    }
  });
  // As an operator does it: first everybody trusts both, then everybody becomes new.
  WriteTestFile(folder_.Path("ca.crt"), ca_.cert_pem() + next_ca_.cert_pem(), 0644);
  absl::SleepFor(absl::Milliseconds(2500));
  WriteIdentities(next_ca_);
  const absl::Time limit = absl::Now() + kLimit;
  absl::Status by_new_ca;
  do {
    absl::SleepFor(absl::Milliseconds(20));
    by_new_ca = DescribeExpert(Channel(expert_address_, "next-ca", "router"));
  } while (!by_new_ca.ok() && absl::Now() < limit);
  EXPECT_TRUE(by_new_ca.ok()) << by_new_ca;
  ASSERT_TRUE(expert_->Restart().ok());

  const Streamed revoked = Stream(router, "key-of-ops", 300, [&] { WriteKeys({"alice"}); });
  EXPECT_TRUE(revoked.status.ok()) << "what runs may end: " << revoked.status;
  absl::Status refused;
  do {
    absl::SleepFor(absl::Milliseconds(20));
    refused = Stream(router, "key-of-ops", 1).status;
  } while (refused.ok() && absl::Now() < limit);
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  // Some began after all of that.
  const int n_before = n_streams;
  while (n_streams < n_before + 2 && absl::Now() < limit) absl::SleepFor(absl::Milliseconds(20));
  EXPECT_GE(n_streams, n_before + 2);
  stop = true;
  load.join();
}

}  // namespace
}  // namespace gatefold

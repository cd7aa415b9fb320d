// What a prober of each process hears, from before its weights are loaded to the end of its drain.

#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gatefold/internal/v1/expert.grpc.pb.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "tests/integration/process.h"

namespace gatefold {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckResponse;

constexpr char kModel[] = "--model=tests/golden/mixtral/bf16";
constexpr absl::Duration kLimit = absl::Seconds(30);

class HealthOfProcessesTest : public testing::Test {
 protected:
  std::unique_ptr<Process> Start(const std::string& program, const std::string& name,
                                 std::vector<std::string> args) {
    args.insert(args.end(), {kModel, "--threads=1", "--metrics-port=-1", "--health-port=0",
                             absl::StrCat("--listen=", Address(name))});
    auto process = Process::Start(program, args, folder_.Path(name + ".log"));
    EXPECT_TRUE(process.ok()) << process.status();
    return *std::move(process);
  }
  std::string Address(const std::string& name) const {
    return absl::StrCat("unix:", folder_.Path(name));
  }

  // As a kubelet does it: a connection per question. "" if nobody answers.
  static std::string Ask(Process* process, const std::string& service) {
    const auto line = process->AwaitLine("health on ", absl::Now() + kLimit);
    if (!line.ok()) return std::string(line.status().message());
    const auto stub = Health::NewStub(grpc::CreateChannel(
        std::string(absl::StripPrefix(*line, "health on ")), grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(5)));
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    if (!stub->Check(&context, request, &response).ok()) return "";
    return HealthCheckResponse::ServingStatus_Name(response.status());
  }
  static bool BecomesReady(Process* process, bool ready) {
    const absl::Time limit = absl::Now() + kLimit;
    const std::string wanted = ready ? "SERVING" : "NOT_SERVING";
    while (Ask(process, "readiness") != wanted) {
      if (absl::Now() > limit) return false;
      absl::SleepFor(absl::Milliseconds(20));
    }
    return true;
  }

  TemporaryFolder folder_;
};

TEST_F(HealthOfProcessesTest, ARouterIsReadyOnceEveryExpertHasAShardAndWhileItReachesAnybody) {
  const auto router = Start("router-service", "router",
                            {absl::StrCat("--experts=", Address("expert")),
                             absl::StrCat("--attention=", Address("attention"))});
  ASSERT_TRUE(router->AwaitLine("health on ", absl::Now() + kLimit).ok());
  EXPECT_EQ(Ask(router.get(), "liveness"), "SERVING");
  EXPECT_EQ(Ask(router.get(), "readiness"), "NOT_SERVING");
  const auto attention = Start("attention-service", "attention", {});
  const auto expert = Start("expert-service", "expert", {});
  for (Process* process : {attention.get(), expert.get(), router.get()}) {
    EXPECT_TRUE(BecomesReady(process, true)) << process->Log();
    EXPECT_EQ(Ask(process, "startup"), "SERVING");
    EXPECT_EQ(Ask(process, "liveness"), "SERVING");
  }
  // Without its only shard it takes requests, which wait.
  expert->Signal(SIGKILL);
  const absl::Time limit = absl::Now() + kLimit;
  while (!absl::StrContains(router->Log(), "to=unreachable") && absl::Now() < limit) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  absl::SleepFor(absl::Milliseconds(300));
  EXPECT_EQ(Ask(router.get(), "readiness"), "SERVING");
  attention->Signal(SIGKILL);
  EXPECT_TRUE(BecomesReady(router.get(), false));
  EXPECT_EQ(Ask(router.get(), "startup"), "SERVING");
  EXPECT_EQ(Ask(router.get(), "liveness"), "SERVING");
  ASSERT_TRUE(expert->Restart().ok());
  EXPECT_TRUE(BecomesReady(router.get(), true));
}

// What it would serve by one that drains, others might have to go on with in another numerics
// class.
TEST_F(HealthOfProcessesTest, ARouterDoesNotBeginWithShardsThatDrain) {
  const auto attention = Start("attention-service", "attention", {});
  const auto expert = Start("expert-service", "expert", {});
  EXPECT_TRUE(BecomesReady(expert.get(), true)) << expert->Log();
  const auto stub = internal::v1::ExpertService::NewStub(
      grpc::CreateChannel(Address("expert"), grpc::InsecureChannelCredentials()));
  const auto set_draining = [&](bool draining) {
    grpc::ClientContext context;
    internal::v1::ExpertServiceSetDrainingRequest request;
    internal::v1::ExpertServiceSetDrainingResponse response;
    request.set_draining(draining);
    return stub->SetDraining(&context, request, &response).ok();
  };
  ASSERT_TRUE(set_draining(true));
  const auto router = Start("router-service", "router",
                            {absl::StrCat("--experts=", Address("expert")),
                             absl::StrCat("--attention=", Address("attention"))});
  EXPECT_TRUE(router->AwaitLine("health on ", absl::Now() + kLimit).ok());
  absl::SleepFor(absl::Seconds(1));
  EXPECT_EQ(Ask(router.get(), "readiness"), "NOT_SERVING");
  ASSERT_TRUE(set_draining(false));
  EXPECT_TRUE(BecomesReady(router.get(), true));
}

TEST_F(HealthOfProcessesTest, ADrainingShardIsNotReadyAndAlive) {
  const auto expert = Start("expert-service", "expert", {});
  EXPECT_TRUE(BecomesReady(expert.get(), true)) << expert->Log();
  expert->Signal(SIGTERM);  // two quiet seconds follow
  EXPECT_TRUE(BecomesReady(expert.get(), false));
  EXPECT_EQ(Ask(expert.get(), "liveness"), "SERVING");
  EXPECT_EQ(*expert->Wait(absl::Now() + kLimit), 0);
}

// As what supervises processes tells a wrong flag, which no restart mends, from the rest.
TEST_F(HealthOfProcessesTest, AWrongFlagEndsWithTwo) {
  const std::string workers[] = {absl::StrCat("--experts=", Address("expert")),
                                 absl::StrCat("--attention=", Address("attention"))};
  const auto router =
      Start("router-service", "router", {workers[0], workers[1], "--drain-limit=-1s"});
  const auto expert = Start("expert-service", "expert", {"--weights=int2"});
  const auto attention = Start("attention-service", "attention", {"--kv-memory=much"});
  for (Process* process : {router.get(), expert.get(), attention.get()}) {
    EXPECT_EQ(*process->Wait(absl::Now() + kLimit), 2) << process->Log();
  }
}

TEST_F(HealthOfProcessesTest, APlannerIsReadyWithoutShards) {
  const auto planner = Start("router-service", "planner",
                             {"--planner=only", absl::StrCat("--experts=", Address("expert"))});
  EXPECT_TRUE(BecomesReady(planner.get(), true)) << planner->Log();
  EXPECT_EQ(Ask(planner.get(), "startup"), "SERVING");
  EXPECT_EQ(Ask(planner.get(), "liveness"), "SERVING");
  planner->Signal(SIGTERM);
  EXPECT_EQ(*planner->Wait(absl::Now() + kLimit), 0);
}

}  // namespace
}  // namespace gatefold

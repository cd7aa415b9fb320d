#include "cli/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "cli/error_report.h"
#include "cli/fake_router.h"
#include "cli/output.h"
#include "gatefold/base/errors.h"
#include "gatefold/model/model_manifest.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/status.h"
#include "gatefold/rpc/test_certificates.h"
#include "gatefold/rpc/tls.h"
#include "router-service/gateway/api_keys.h"

namespace gatefold::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class CommandTest : public testing::Test {
 protected:
  // The exit code where standard output is a pipe that nobody reads.
  int RunUnread(const std::vector<std::string>& arguments, const std::string& input = "") {
    std::istringstream in(input);
    struct : std::streambuf {
    } closed;  // takes nothing
    std::ostream out(&closed);
    std::ostringstream err;
    Console console{in, out, err, false, &interrupts_};
    const int exit_code = RunCommand(arguments, {}, &console);
    err_ = err.str();
    return exit_code;
  }
  // Runs `gatefold ARGUMENTS` with `input` as standard input.
  int Run(const std::vector<std::string>& arguments, const std::string& input = "",
          const Environment& environment = {}) {
    std::istringstream in(input);
    std::ostringstream out, err;
    Console console{in, out, err, false, &interrupts_};
    const int exit_code = RunCommand(arguments, environment, &console);
    out_ = out.str();
    err_ = err.str();
    return exit_code;
  }
  // The same with --router, for success.
  std::string Ask(std::vector<std::string> arguments, const std::string& input = "") {
    arguments.push_back("--router=" + router_.address());
    EXPECT_EQ(Run(arguments, input), 0) << err_;
    return out_;
  }

  FakeRouter router_;
  Interrupts interrupts_;
  std::string out_, err_;
};

TEST_F(CommandTest, GeneratesTheDocumentedForm) {
  EXPECT_EQ(Ask({"generate", "--tokens", "1,5,9", "-o", "json"}),
            "{\"token_ids\":[7,8,9],\"text\":\"abc\",\"finish_reason\":\"length\","
            "\"usage\":{\"prompt_tokens\":3,\"cached_tokens\":1,\"output_tokens\":3}}\n");
  EXPECT_THAT(router_.generate_requests.at(0).prompt().token_ids().ids(), ElementsAre(1, 5, 9));
}

TEST_F(CommandTest, GoesOnAtTheNextRouterFromTheTokensItHas) {
  FakeRouter gone, going;
  gone.failure = {grpc::StatusCode::UNAVAILABLE, "gone"};
  going.leave = true;
  EXPECT_EQ(Run({"generate", "hello", "-o", "json",
                 absl::StrCat("--router=", gone.address(), ",", going.address(), ",",
                              router_.address())}),
            0)
      << err_;
  EXPECT_EQ(Json::parse(out_)["text"], "abc");
  EXPECT_THAT(router_.resume_token_ids, ElementsAre(7, 8));
  EXPECT_EQ(router_.generate_requests.at(0).config().seed(), 17u);
  EXPECT_THAT(err_, HasSubstr("going on elsewhere"));
}

TEST_F(CommandTest, MissesNothingWhereTheConnectionEndsBehindTheAnswer) {
  router_.end = {grpc::StatusCode::UNAVAILABLE, "Broken pipe"};
  EXPECT_EQ(Run({"generate", "hello", "--router=" + router_.address()}), 0) << err_;
  EXPECT_EQ(out_, "abc\n");
  EXPECT_EQ(router_.generate_requests.size(), 1);
}

TEST_F(CommandTest, EndsWhereNoRouterBringsATokenMore) {
  router_.leave = true;
  EXPECT_EQ(Run({"generate", "hello", "--router=" + router_.address()}), kExitFailed);
  EXPECT_EQ(router_.generate_requests.size(), 2);  // once more, for it had brought tokens
  EXPECT_EQ(out_, "ab");
  EXPECT_THAT(err_, HasSubstr("going"));
}

TEST_F(CommandTest, TellsNoTimeOfATokenThatDidNotCome) {
  Ask({"generate", "hello"});  // nor does the router
  EXPECT_THAT(err_, HasSubstr("3 output tokens (length), seed 0\n"));
}

TEST_F(CommandTest, ServeRefusesAnAddressBeforeItReadsTheModel) {
  EXPECT_EQ(Run({"serve", "--model=/nowhere", "--listen=nonsense"}), 2);
  EXPECT_THAT(err_, HasSubstr("--listen"));
  EXPECT_THAT(err_, Not(HasSubstr("/nowhere")));
}

TEST_F(CommandTest, SendsARequestIdOfTheUsersOwn) {
  Ask({"generate", "hello", "--request-id", "mine"});
  EXPECT_EQ(router_.generate_requests.at(0).request_id(), "mine");
}

TEST_F(CommandTest, SendsOnlyWhatWasGiven) {
  Ask({"generate", "hello", "--temperature", "0", "--stop", "x", "--stop", "y"});
  const inference::v1::GenerateTextRequest& request = router_.generate_requests.at(0);
  EXPECT_EQ(request.prompt().text(), "hello");
  EXPECT_TRUE(request.config().has_temperature());
  EXPECT_FALSE(request.config().has_max_output_tokens());
  EXPECT_FALSE(request.config().has_seed());
  EXPECT_THAT(request.config().stop_sequences(), ElementsAre("x", "y"));
}

TEST_F(CommandTest, PrintsTextWithFiguresApart) {
  EXPECT_EQ(Ask({"generate", "-"}, "a prompt\n"), "abc\n");
  EXPECT_EQ(router_.generate_requests.at(0).prompt().text(), "a prompt\n");
  EXPECT_THAT(err_, HasSubstr("3 prompt tokens, 3 output tokens (length)"));
  EXPECT_EQ(Ask({"generate", "--no-stream", "hello"}), "abc\n");
}

TEST_F(CommandTest, LeavesSpecialTokensOutWithoutBos) {
  Ask({"generate", "--no-bos", "hello"});
  EXPECT_FALSE(router_.generate_requests.at(0).prompt().add_special_tokens());
  EXPECT_EQ(Ask({"tokenize", "--no-bos", "-o", "json"}, "hi"), "{\"token_ids\":[4]}\n");
  EXPECT_EQ(router_.tokenize_requests.at(0).prompt().text(), "hi");
  EXPECT_FALSE(router_.tokenize_requests.at(0).prompt().add_special_tokens());
}

TEST_F(CommandTest, DetokenizesTheDocumentedForm) {
  EXPECT_EQ(Ask({"detokenize", "--tokens", "1,2", "--skip-special", "-o", "json"}),
            "{\"text\":\"t\xC3\xA4xt\"}\n");
  EXPECT_THAT(router_.detokenize_requests.at(0).token_ids(), ElementsAre(1, 2));
  EXPECT_TRUE(router_.detokenize_requests.at(0).skip_special_tokens());
  EXPECT_EQ(Run({"detokenize", "--router", router_.address()}, "[3, x]"), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("standard input: must be whole numbers, as 1,5,9; item 2 is"));
  Ask({"detokenize"}, "[3, 4]");
  EXPECT_THAT(router_.detokenize_requests.at(1).token_ids(), ElementsAre(3, 4));
}

TEST_F(CommandTest, ScoresAndWritesTheLogits) {
  router_.score_response.add_tokens()->set_token_id(1);
  router_.score_response.add_tokens()->set_logprob(-0.5);
  router_.score_response.add_argmax(4);
  router_.score_response.add_argmax(5);
  router_.score_response.set_last_logits(std::string("\0\0\x80\x3f\0\0\0\x40", 8));
  const std::string file = testing::TempDir() + "/gatefold_logits";
  EXPECT_EQ(Ask({"score", "--tokens=1,2", "--logits-out", file, "-o", "json"}),
            "{\"argmax\":[4,5],\"logprobs\":[null,-0.5]}\n");
  EXPECT_TRUE(router_.score_requests.at(0).last_logits());
  EXPECT_FALSE(router_.score_requests.at(0).routing_trace());
  std::ifstream written(file, std::ios::binary);
  float logits[2] = {};
  written.read(reinterpret_cast<char*>(logits), sizeof(logits));
  EXPECT_EQ(logits[0], 1);
  EXPECT_EQ(logits[1], 2);
  EXPECT_EQ(written.peek(), EOF);
  std::remove(file.c_str());
}

TEST_F(CommandTest, ReadsTokensFromAFile) {
  const std::string file = testing::TempDir() + "/gatefold_tokens.json";
  std::ofstream(file) << "[1, 2,\n 3]\n";
  Ask({"generate", "--tokens-file", file});
  EXPECT_THAT(router_.generate_requests.at(0).prompt().token_ids().ids(), ElementsAre(1, 2, 3));
  std::remove(file.c_str());
}

TEST_F(CommandTest, ListsEveryPage) {
  const Json json = Json::parse(Ask({"get", "models", "-o", "json"}));
  ASSERT_EQ(json["models"].size(), 2);
  EXPECT_EQ(json["models"][1]["name"], "two");
}

TEST_F(CommandTest, KeepsTheConversation) {
  EXPECT_EQ(Ask({"chat", "--system", "be brief"}, "hi\n\nand?\n/reset\nagain\n"),
            "abc\nabc\nabc\n");
  ASSERT_EQ(router_.generate_requests.size(), 3);
  const auto& second = router_.generate_requests[1].prompt().conversation();
  ASSERT_EQ(second.messages_size(), 4);
  EXPECT_EQ(second.messages(0).role(), "system");
  EXPECT_EQ(second.messages(2).role(), "assistant");
  EXPECT_EQ(second.messages(2).content(), "abc");
  EXPECT_EQ(second.messages(3).content(), "and?");
  EXPECT_EQ(router_.generate_requests[2].prompt().conversation().messages_size(), 2);
}

TEST_F(CommandTest, TalksToProgramsInOneObjectForEachTurn) {
  const std::string answers = Ask({"chat", "-o", "json"}, "hi\nand?\n");
  EXPECT_EQ(std::count(answers.begin(), answers.end(), '\n'), 2);
  const Json first = Json::parse(answers.substr(0, answers.find('\n')));
  EXPECT_EQ(first["text"], "abc");
  EXPECT_FALSE(first["token_ids"].empty());
  EXPECT_TRUE(router_.generate_requests[0].output().token_ids());
}

TEST_F(CommandTest, SaysHowToGoOnWhenTheConversationHasBecomeTooLong) {
  router_.failure = ToGrpcStatus(ContextLengthExceeded(161, 128));
  std::istringstream in("hi\nagain\n");
  std::ostringstream out, err;
  Console console{in, out, err, /*in_is_terminal=*/true, &interrupts_};
  EXPECT_EQ(RunCommand({"chat", "--router", router_.address()}, {}, &console), 0);
  EXPECT_THAT(err.str(), HasSubstr("the prompt has 161 tokens, the limit is 128"));
  EXPECT_THAT(err.str(), HasSubstr("/reset"));
}

TEST_F(CommandTest, TakesLineEndsOfEitherKindForTheEndsOfTurns) {
  EXPECT_EQ(Ask({"chat"}, "hi \r\n/exit\r\n"), "abc\n");
  ASSERT_EQ(router_.generate_requests.size(), 1);
  EXPECT_EQ(router_.generate_requests[0].prompt().conversation().messages(0).content(), "hi ");
}

TEST_F(CommandTest, MeasuresTheDocumentedForm) {
  const Json json = Json::parse(Ask(
      {"bench", "--prompt-tokens", "4", "--output-tokens", "3", "--requests", "2", "-o", "json"}));
  EXPECT_GT(json["prefill_tokens_per_second"].get<double>(), 0);
  EXPECT_TRUE(json.contains("decode_tokens_per_second"));
  EXPECT_TRUE(json["ttft_ms"]["p50"].is_number() && json["ttft_ms"]["p99"].is_number());
  EXPECT_TRUE(json["itl_ms"]["p50"].is_number() && json["itl_ms"]["p99"].is_number());
  EXPECT_EQ(json["requests_failed"], 0);
  EXPECT_EQ(router_.generate_requests.size(), 3);  // one to warm up
  EXPECT_TRUE(router_.generate_requests[1].config().ignore_eos());
  for (const int32_t id : router_.generate_requests[1].prompt().token_ids().ids()) {
    EXPECT_LT(id, 16);
  }
}

TEST_F(CommandTest, MeasuresAsManyRequestsAtOnceAsItIsTold) {
  for (const auto& [concurrency, n_requests] : {std::pair(1, 3), {2, 4}, {3, 3}, {5, 5}}) {
    router_.generate_requests.clear();
    Ask({"bench", "--prompt-tokens", "4", absl::StrCat("--concurrency=", concurrency)});
    EXPECT_EQ(router_.generate_requests.size(), 1 + n_requests) << concurrency;
  }
}

TEST_F(CommandTest, TakesTheSeedOfAMeasurementFromTheEnvironmentToo) {
  const auto prompt = [this](const std::string& flag, const Environment& environment) {
    router_.generate_requests.clear();
    EXPECT_EQ(Run({"bench", "--router", router_.address(), "--prompt-tokens", "9", flag}, "",
                  environment),
              0)
        << err_;
    return router_.generate_requests.at(1).prompt().SerializeAsString();
  };
  EXPECT_EQ(prompt("--output=table", {{"GATEFOLD_SEED", "7"}}), prompt("--seed=7", {}));
}

TEST_F(CommandTest, SaysWhatFailed) {
  router_.failure = grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "top_p is 3");
  EXPECT_EQ(Run({"generate", "x", "--router", router_.address()}), kExitFailed);
  EXPECT_THAT(err_, StartsWith("gatefold generate: top_p is 3"));
}

TEST(DescribeErrorTest, KeepsTheNextStepOfAVerbThatWaitedTooLong) {
  const absl::Status late = absl::DeadlineExceededError("w has 3 sequences");
  EXPECT_THAT(DescribeError("bench", late), HasSubstr("--timeout"));
  EXPECT_EQ(DescribeError("drain", WithNextStep(late, "Wait longer with --wait.")),
            "gatefold drain: w has 3 sequences\nWait longer with --wait.\n");
}

TEST(ModelFolderErrorTest, NamesTheFolderOnce) {
  EXPECT_EQ(ModelFolderError("m", absl::UnimplementedError("m: x")).message(), "--model: m: x");
  EXPECT_EQ(ModelFolderError("m", absl::UnimplementedError("my x")).message(), "--model m: my x");
}

TEST_F(CommandTest, DoesNotTakeATornStreamForAnAnswer) {
  router_.lose_the_end = true;
  EXPECT_EQ(Run({"generate", "x", "-o", "json", "--router", router_.address()}), kExitFailed);
  EXPECT_EQ(out_, "");
}

TEST_F(CommandTest, SaysWhereNobodyListens) {
  EXPECT_EQ(Run({"generate", "x", "--router", "unix:/nonexistent/gatefold.sock"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("Check that a router listens there"));
  EXPECT_EQ(Run({"top", "--once", "--router", "unix:/nonexistent/gatefold.sock"}), kExitFailed);
  EXPECT_THAT(err_, AllOf(HasSubstr("Check that"), Not(HasSubstr("--model"))));
}

TEST_F(CommandTest, CancelsTheRequestWhenInterrupted) {
  router_.hang = true;
  std::thread user([this] {
    const bool asked = router_.hanging.WaitForNotificationWithTimeout(absl::Seconds(60));
    EXPECT_TRUE(asked && interrupts_.Raise());
  });
  EXPECT_EQ(Run({"generate", "x", "--router", router_.address()}), kExitInterrupted) << err_;
  user.join();
}

TEST_F(CommandTest, WatchesNothingThatNobodyReads) {
  absl::Notification ended;
  std::thread user([&] {
    if (!ended.WaitForNotificationWithTimeout(absl::Seconds(20))) interrupts_.Raise();
  });
  EXPECT_EQ(RunUnread({"top", "--interval=100ms", "--router=" + router_.address()}), kExitFailed);
  ended.Notify();
  user.join();
  EXPECT_THAT(err_, HasSubstr("the output could not be written"));
}

TEST_F(CommandTest, ComparesNothingWithFlagsThatNoModelIsServedWith) {
  for (const char* flag : {"--isa=sse9", "--n-slices=0"}) {
    EXPECT_EQ(Run({"compare", "--models=/nonexistent", flag}), kExitUsage) << flag << err_;
  }
}

TEST_F(CommandTest, SaysThatHelpCouldNotBeWritten) {
  for (const std::vector<std::string>& help :
       {std::vector<std::string>{"help"}, {"bench", "--help"}, {"help", "top"}, {"version"}}) {
    EXPECT_EQ(RunUnread(help), kExitFailed) << help[0];
    EXPECT_THAT(err_, HasSubstr("the output could not be written"));
  }
}

TEST_F(CommandTest, TalksToNobodyWhoDoesNotRead) {
  EXPECT_EQ(RunUnread({"chat", "--router=" + router_.address()}, "one\ntwo\nthree\n"), kExitFailed);
  EXPECT_EQ(router_.generate_requests.size(), 1);
  EXPECT_THAT(err_, HasSubstr("the output could not be written"));
}

TEST_F(CommandTest, EndsAMeasurementThatIsInterrupted) {
  router_.hang = true;
  router_.n_before_hang = 2;  // the one to warm up and the first that counts
  std::thread user([this] {
    const bool asked = router_.hanging.WaitForNotificationWithTimeout(absl::Seconds(60));
    EXPECT_TRUE(asked && interrupts_.Raise());
  });
  EXPECT_EQ(Run({"bench", "--prompt-tokens=4", "--requests=9", "--router", router_.address()}),
            kExitInterrupted);
  user.join();
  EXPECT_EQ(out_, "");
  EXPECT_THAT(err_, HasSubstr("interrupted"));
  EXPECT_EQ(router_.generate_requests.size(), 3);  // and asks for no more
}

using CommandDeathTest = CommandTest;

TEST_F(CommandDeathTest, ServeEndsWellWhileItLoads) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  interrupts_.Raise();
  EXPECT_EXIT(Run({"serve", "--model=/nowhere"}), testing::ExitedWithCode(kExitOk), "");
}

TEST_F(CommandTest, RefusesWrongUsage) {
  EXPECT_EQ(Run({}), kExitUsage);
  EXPECT_EQ(Run({"generat"}), kExitUsage);
  EXPECT_EQ(Run({"generate", "x"}), kExitUsage);
  EXPECT_THAT(err_, HasSubstr("--model DIR"));
  EXPECT_EQ(Run({"generate", "x", "--model", "a", "--router", "b"}), kExitUsage);
  EXPECT_EQ(Run({"generate", "x", "--router", "b", "--threads", "2"}), kExitUsage);
  EXPECT_EQ(Run({"generate", "x", "--tokens", "1", "--router", "b"}), kExitUsage);
  EXPECT_EQ(Run({"generate", "x", "-o", "xml", "--router", "b"}), kExitUsage);
  EXPECT_EQ(Run({"generate", "--tokens", "1,x", "--router", "b"}), kExitUsage);
  EXPECT_EQ(Run({"get", "nodes", "--router", "b"}), kExitUsage);
}

TEST_F(CommandTest, RefusesSettingsNoModelIsServedWith) {
  for (const char* flag : {"--threads=-1", "--lanes=0", "--n-slices=0", "--max-step-tokens=-1",
                           "--wire-dtype=f8", "--isa=mmx", "--weights=int2", "--kv-memory=much"}) {
    EXPECT_EQ(Run({"generate", "x", "--model", "/nonexistent", flag}), kExitUsage) << flag;
  }
}

TEST_F(CommandTest, TakesTheRouterFromTheEnvironment) {
  EXPECT_EQ(Run({"generate", "x"}, "", {{"GATEFOLD_ROUTER", router_.address()}}), 0) << err_;
  EXPECT_EQ(out_, "abc\n");
}

TEST_F(CommandTest, SendsTheKeyItIsGiven) {
  Ask({"generate", "x"});
  EXPECT_EQ(router_.authorization, "");
  EXPECT_EQ(
      Run({"generate", "x", "--router", router_.address()}, "", {{"GATEFOLD_API_KEY", "gf_1"}}), 0);
  EXPECT_EQ(router_.authorization, "Bearer gf_1");
  const std::string file = testing::TempDir() + "/gatefold_key";
  WriteTestFile(file, "gf_2\n");
  Ask({"generate", "x", "--api-key-file", file});
  EXPECT_EQ(router_.authorization, "Bearer gf_2");
  WriteTestFile(file, "gf_2\n", 0644);
  EXPECT_EQ(Run({"generate", "x", "--api-key-file", file, "--router", router_.address()}),
            kExitFailed);
  EXPECT_THAT(err_, HasSubstr("chmod 600"));
  EXPECT_EQ(Run({"generate", "x", "--api-key", "a\nb", "--router", router_.address()}), kExitUsage);
  router_.failure = grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "an API key is needed");
  EXPECT_EQ(Run({"generate", "x", "--router", router_.address()}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("GATEFOLD_API_KEY"));
  std::remove(file.c_str());
}

TEST_F(CommandTest, SpeaksTlsWithTheFilesItIsGiven) {
  const TestCa ca("ca");
  const std::string folder = testing::TempDir();
  ca.Issue("router").Write(folder, "gatefold_router");
  WriteTestFile(folder + "/gatefold_ca.crt", ca.cert_pem());
  TlsOptions files;
  files.cert_file = folder + "/gatefold_router.crt";
  files.key_file = folder + "/gatefold_router.key";
  const auto security = TransportSecurity::ForServer(files);
  ASSERT_TRUE(security.ok()) << security.status();
  FakeRouter router(security->ServerCredentials(*ParseAddress("127.0.0.1:1")));
  EXPECT_EQ(Run({"generate", "x", "--router", router.address(), "--tls-ca-file",
                 folder + "/gatefold_ca.crt"}),
            0)
      << err_;
  EXPECT_EQ(out_, "abc\n");
  EXPECT_EQ(Run({"generate", "x", "--router", router.address()}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("with TLS if --tls-ca-file is given"));
  EXPECT_EQ(Run({"generate", "x", "--model", "/nonexistent", "--tls-ca-file", "x"}), kExitUsage);
}

TEST_F(CommandTest, MakesKeysWhoseHashIsAllThatIsKept) {
  EXPECT_EQ(Run({"keys", "alice", "--tokens-per-minute", "100", "--max-priority", "0", "--admin"}),
            0)
      << err_;
  const auto keys = ParseApiKeys(out_);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->at(0).name, "alice");
  EXPECT_TRUE(keys->at(0).admin);
  EXPECT_EQ(keys->at(0).tokens_per_minute, 100);
  EXPECT_EQ(keys->at(0).max_priority, 0);
  EXPECT_EQ(keys->at(0).hash, HashApiKey(err_.substr(0, err_.find('\n'))));
  EXPECT_EQ(Run({"keys"}), kExitUsage);
  EXPECT_EQ(Run({"keys", "a b"}), kExitUsage);
  EXPECT_EQ(Run({"keys", "a", "--requests-per-minute", "0"}), kExitUsage);
  EXPECT_EQ(Run({"keys", "a", "--max-priority", "101"}), kExitUsage);
}

TEST_F(CommandTest, ADeviceThatCannotBeHadIsNotTakenForAModelThatIsNotThere) {
  EXPECT_EQ(Run({"generate", "x", "--model", "models/gatefold-tiny-moe", "--backend", "cuda"}),
            kExitFailed);
  EXPECT_THAT(absl::AsciiStrToLower(err_), HasSubstr("cuda"));
  EXPECT_THAT(err_, testing::Not(HasSubstr("A model is a folder")));
}

TEST_F(CommandTest, FailsWithoutAModelFolder) {
  EXPECT_EQ(Run({"generate", "x", "--model", "/nonexistent"}), kExitFailed);
  EXPECT_THAT(err_, HasSubstr("/nonexistent"));
  EXPECT_THAT(err_, HasSubstr("A model is a folder with config.json"));
  EXPECT_EQ(Run({"tokenize", "x", "--model", "/nonexistent"}), kExitFailed);
  EXPECT_EQ(Run({"inspect", "/nonexistent"}), kExitFailed);
}

TEST_F(CommandTest, PrintsTheManifestOfAModel) {
  constexpr char kModel[] = "tests/golden/mixtral/bf16";
  ASSERT_EQ(Run({"inspect", "--manifest", kModel}), 0) << err_;
  const auto weights = *ModelWeights::Open(kModel);
  const auto manifest = ModelManifest::Parse(out_, "out", weights->config());
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->model_fingerprint, weights->Fingerprint());
}

TEST_F(CommandTest, HelpsWithEveryVerb) {
  EXPECT_EQ(Run({"help"}), 0);
  const std::string overview = out_;
  for (const auto& verb : MakeVerbs()) {
    EXPECT_THAT(overview, HasSubstr(std::string(verb->name())));
    EXPECT_EQ(Run({std::string(verb->name()), "--help"}), 0);
    EXPECT_THAT(out_, StartsWith("Usage: gatefold " + std::string(verb->name())));
  }
  EXPECT_EQ(Run({"version"}), 0);
  EXPECT_THAT(out_, StartsWith("gatefold "));
}

}  // namespace
}  // namespace gatefold::cli

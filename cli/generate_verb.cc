#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/answer.h"
#include "cli/connection.h"
#include "cli/generation_flags.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/prompt_flags.h"
#include "cli/routing_report.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

void PrintLogprobs(const std::vector<inference::v1::TokenLogprobs>& tokens, std::ostream& out) {
  Table table({"token", ">id", ">logprob", "alternatives"});
  for (const inference::v1::TokenLogprobs& token : tokens) {
    const std::string alternatives =
        absl::StrJoin(token.top(), "  ", [](std::string* text, const auto& alternative) {
          absl::StrAppendFormat(text, "%s %.3f", Quoted(alternative.token()),
                                alternative.logprob());
        });
    table.AddRow({Quoted(token.token()), absl::StrCat(token.token_id()),
                  absl::StrFormat("%.4f", token.logprob()), alternatives});
  }
  table.Print(out);
}

// "3 prompt tokens, 32 output tokens (length), seed 7, first after 12 ms, then 80.1 tokens/s"
std::string SummaryLine(const Answer& answer) {
  const inference::v1::Usage& usage = answer.summary.usage();
  const inference::v1::Timings& timings = answer.summary.timings();
  std::string line =
      absl::StrFormat("%u prompt tokens, %u output tokens (%s), seed %u", usage.prompt_tokens(),
                      usage.output_tokens(), FinishReasonName(answer.finish.reason()),
                      answer.summary.effective_config().seed());
  if (timings.has_first_token()) {
    absl::StrAppendFormat(&line, ", first after %.0f ms", 1e3 * Seconds(timings.first_token()));
  }
  const uint32_t n_timed =
      usage.output_tokens() - std::min(usage.output_tokens(), answer.n_resumed);
  if (const double decode = Seconds(timings.decode()); n_timed > 1 && decode > 0) {
    absl::StrAppendFormat(&line, ", then %.1f tokens/s", (n_timed - 1) / decode);
  }
  if (answer.summary.mixed_numerics()) {
    absl::StrAppend(&line, "\nshards of different numerics classes took part");
  }
  if (const uint32_t n = answer.summary.degraded_tokens(); n > 0) {
    absl::StrAppend(&line, "\n", n, " tokens were computed without some of their experts");
  }
  return line;
}

class GenerateVerb final : public Verb {
 public:
  absl::string_view name() const override { return "generate"; }
  absl::string_view arguments() const override { return "[PROMPT|-]"; }
  absl::string_view summary() const override { return "Goes on from a prompt."; }
  absl::string_view details() const override {
    return "The text goes to standard output, a line of figures to standard error.\n"
           "With -o json one object: token_ids, text, finish_reason, usage, and degraded_tokens where some\n"
           "were computed without some of their experts.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddTo(flags);
    prompt_.AddTo(flags);
    generation_.AddTo(flags);
    flags->Add("request-id", "ID", "for logs and `gatefold trace` (default: random)", &request_id_);
    flags->Section("What is shown:");
    flags->AddSwitch("stream", "text as it comes (default), or all at the end", &stream_);
    flags->Add("logprobs", "N", "each token's log-probability and N alternatives", &logprobs_);
    flags->AddSwitch("trace", "which shards and experts the tokens went to", &trace_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    inference::v1::GenerateTextRequest request;
    GF_ASSIGN_OR_RETURN(*request.mutable_prompt(), prompt_.Read(flags, arguments, console));
    *request.mutable_config() = generation_.ToConfig();
    request.set_request_id(request_id_);
    request.mutable_output()->set_token_ids(true);
    request.mutable_output()->set_timings(true);
    request.mutable_output()->set_routing_trace(trace_);
    request.mutable_output()->set_logprobs(logprobs_.has_value());
    request.mutable_output()->set_top_logprobs(logprobs_.value_or(0));

    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    const OnDelta on_delta = stream_ && !output_.json() ? PrintedOn(console) : OnDelta();
    GF_ASSIGN_OR_RETURN(const Answer answer,
                        GenerateSteadily(connection.get(), request, on_delta, console));
    output_.json() ? PrintAsJson(answer, console) : PrintAsText(answer, console);
    return absl::OkStatus();
  }

 private:
  void PrintAsJson(const Answer& answer, Console* console) const {
    Json json = GenerateJson(answer);
    if (logprobs_) json["logprobs"] = LogprobsJson(answer.logprobs);
    if (trace_) json["trace"] = RoutingSharesJson(answer.routing);
    PrintJson(json, console->out);
  }

  void PrintAsText(const Answer& answer, Console* console) const {
    if (!stream_) console->out << answer.text;
    if (!absl::EndsWith(answer.text, "\n")) console->out << "\n";
    console->out.flush();
    if (logprobs_) PrintLogprobs(answer.logprobs, console->out);
    if (trace_) PrintRoutingShares(answer.routing, console->out);
    console->out.flush();
    console->err << SummaryLine(answer) << "\n";
  }

  ConnectionFlags connection_;
  PromptFlags prompt_;
  GenerationFlags generation_;
  OutputFlag output_;
  std::string request_id_;
  std::optional<uint32_t> logprobs_;
  bool stream_ = true;
  bool trace_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeGenerateVerb() { return std::make_unique<GenerateVerb>(); }

}  // namespace gatefold::cli

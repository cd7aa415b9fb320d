#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/prompt_flags.h"
#include "cli/routing_view.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

absl::Status WriteFile(const std::string& name, const std::string& content) {
  std::ofstream file(name, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("--logits-out: cannot write ", name));
}

class ScoreVerb final : public Verb {
 public:
  absl::string_view name() const override { return "score"; }
  absl::string_view arguments() const override { return "[TEXT|-]"; }
  absl::string_view summary() const override {
    return "Tells how likely a model finds each token of a text.";
  }
  absl::string_view details() const override {
    return "With -o json one object: argmax, the most likely token after each position; logprobs,\n"
           "each token's natural log-probability given those before, null for the first; with\n"
           "--routing also routing: by layer (null where it has no gate) and token, the experts\n"
           "and their weights, the heaviest first.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddTo(flags);
    prompt_.AddTo(flags);
    flags->Section("What is shown:");
    flags->AddSwitch("routing", "with -o json: which experts each token went to", &routing_);
    flags->Add("logits-out", "FILE",
               "logits after the last token, as little-endian float32 [vocab_size]", &logits_out_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    if (routing_ && !output_.json()) return UsageError("--routing wants -o json");
    inference::v1::ScoreTextRequest request;
    GF_ASSIGN_OR_RETURN(*request.mutable_prompt(), prompt_.Read(flags, arguments, console));
    request.set_routing_trace(routing_);
    request.set_last_logits(!logits_out_.empty());
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    Call call(*connection);
    inference::v1::ScoreTextResponse response;
    GF_RETURN_IF_ERROR(connection->ToStatus(
        connection->inference()->ScoreText(call.context(), request, &response)));
    if (!logits_out_.empty()) {
      if (response.last_logits().empty() || response.last_logits().size() % sizeof(float) != 0) {
        return absl::InternalError(
            absl::StrCat("the answer has ", response.last_logits().size(), " bytes of logits"));
      }
      GF_RETURN_IF_ERROR(WriteFile(logits_out_, response.last_logits()));
    }
    return output_.json() ? PrintAsJson(response, connection.get(), console)
                          : PrintAsTable(response, console);
  }

 private:
  absl::Status PrintAsJson(const inference::v1::ScoreTextResponse& response, Connection* connection,
                           Console* console) const {
    GF_ASSIGN_OR_RETURN(Json json, ScoreJson(response));
    if (routing_) {
      GF_ASSIGN_OR_RETURN(const inference::v1::Model model, connection->GetModel());
      GF_ASSIGN_OR_RETURN(json["routing"],
                          RoutingJson(response.routing_trace(), static_cast<int>(model.n_layers()),
                                      response.tokens_size()));
    }
    PrintJson(json, console->out);
    return absl::OkStatus();
  }

  absl::Status PrintAsTable(const inference::v1::ScoreTextResponse& response,
                            Console* console) const {
    Table table({">position", ">id", "token", ">logprob", ">argmax after it"});
    double sum = 0;
    for (int i = 0; i < response.tokens_size(); ++i) {
      const inference::v1::TokenLogprobs& token = response.tokens(i);
      sum += token.logprob();
      table.AddRow({absl::StrCat(i), absl::StrCat(token.token_id()), Quoted(token.token()),
                    token.has_logprob() ? absl::StrFormat("%.4f", token.logprob()) : "",
                    i < response.argmax_size() ? absl::StrCat(response.argmax(i)) : ""});
    }
    table.Print(console->out);
    console->out << absl::StrFormat("%d tokens, logprob %.4f together\n", response.tokens_size(),
                                    sum);
    if (const uint32_t n = response.degraded_tokens(); n > 0) {
      console->out << n << " tokens were computed without some of their experts\n";
    }
    if (response.mixed_numerics()) {
      console->out << "shards of different numerics classes took part\n";
    }
    return absl::OkStatus();
  }

  ConnectionFlags connection_;
  PromptFlags prompt_;
  OutputFlag output_;
  std::string logits_out_;
  bool routing_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeScoreVerb() { return std::make_unique<ScoreVerb>(); }

}  // namespace gatefold::cli

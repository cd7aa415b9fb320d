#include <istream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "cli/answer.h"
#include "cli/connection.h"
#include "cli/conversation.h"
#include "cli/error_report.h"
#include "cli/generation_flags.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/prompt_flags.h"
#include "cli/verbs.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"

namespace gatefold::cli {
namespace {

class ChatVerb final : public Verb {
 public:
  absl::string_view name() const override { return "chat"; }
  absl::string_view summary() const override { return "Talks, a line at a time."; }
  absl::string_view details() const override {
    return "Every line of standard input is a turn, from a terminal or a pipe; the answers go to\n"
           "standard output. /reset forgets what was said, /exit ends (as Ctrl-D does).\n"
           "With -o json one line for each answer, once it is there: what `generate` prints.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddTo(flags);
    flags->Section("The conversation:");
    flags->Add("system", "TEXT", "what the model is told before the first turn", &system_);
    generation_.AddTo(flags);
    flags->Section("What is shown:");
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    if (!arguments.empty()) return UsageError("chat takes no arguments; write to standard input");
    if (FindInvalidUtf8(system_) != kValidUtf8) return UsageError("--system is not UTF-8");
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    GF_ASSIGN_OR_RETURN(const inference::v1::Model model, connection->GetModel());
    if (!model.has_chat_template()) {
      console->err << model.name() << " has no chat template: it gets the bare text of all turns\n";
    }
    Conversation conversation(system_, model.has_chat_template());
    std::string line;
    // Answers that nobody reads are not asked for.
    while (console->out && ReadLine(console, &line)) {
      const std::string command(absl::StripAsciiWhitespace(line));
      if (command.empty()) continue;
      if (command == "/exit") break;
      if (command == "/reset") {
        conversation.Reset();
        continue;
      }
      GF_RETURN_IF_ERROR(TakeTurn(connection.get(), line, &conversation, console));
    }
    return absl::OkStatus();
  }

 private:
  static bool ReadLine(Console* console, std::string* line) {
    if (console->in_is_terminal) console->err << "> " << std::flush;
    if (!std::getline(console->in, *line)) return false;
    if (absl::EndsWith(*line, "\r")) line->pop_back();  // lines of a file may end as in DOS
    return true;
  }

  // From a terminal a failed turn is reported and forgotten, and the talk goes on.
  absl::Status TakeTurn(Connection* connection, const std::string& line, Conversation* conversation,
                        Console* console) const {
    const absl::Status status = AnswerLine(connection, line, conversation, console);
    if (status.ok() || !console->in_is_terminal || console->interrupts->raised()) return status;
    conversation->DropLast();
    console->err << DescribeError(name(), status);
    if (ReasonOf(status) == kContextLengthExceeded) {
      console->err << "/reset forgets what was said, which makes room.\n";
    }
    return absl::OkStatus();
  }

  absl::Status AnswerLine(Connection* connection, const std::string& line,
                          Conversation* conversation, Console* console) const {
    conversation->AddUser(line);
    if (const size_t invalid = FindInvalidUtf8(line); invalid != kValidUtf8) {
      return absl::InvalidArgumentError(absl::StrCat("the line is not UTF-8 at byte ", invalid));
    }
    inference::v1::GenerateTextRequest request;
    *request.mutable_prompt() = conversation->ToPrompt();
    *request.mutable_config() = generation_.ToConfig();
    const OnDelta on_delta = output_.json() ? OnDelta() : PrintedOn(console);
    GF_ASSIGN_OR_RETURN(const Answer answer,
                        GenerateSteadily(connection, request, on_delta, console));
    if (output_.json()) {
      PrintJson(GenerateJson(answer), console->out);
    } else if (!absl::EndsWith(answer.text, "\n")) {
      console->out << "\n";
    }
    console->out.flush();
    conversation->AddAssistant(answer.text);
    return absl::OkStatus();
  }

  ConnectionFlags connection_;
  GenerationFlags generation_;
  OutputFlag output_;
  std::string system_;
};

}  // namespace

std::unique_ptr<Verb> MakeChatVerb() { return std::make_unique<ChatVerb>(); }

}  // namespace gatefold::cli

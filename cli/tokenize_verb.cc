#include "absl/strings/str_cat.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/prompt_flags.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/tokenizer/tokenizer.h"

namespace gatefold::cli {
namespace {

struct Tokens {
  std::vector<int32_t> ids;
  std::vector<std::string> bytes;  // of each
};

class TokenizeVerb final : public Verb {
 public:
  absl::string_view name() const override { return "tokenize"; }
  absl::string_view arguments() const override { return "[TEXT|-]"; }
  absl::string_view summary() const override { return "Turns text into token ids."; }
  absl::string_view details() const override {
    return "With --model only the tokenizer's files in DIR are needed. With -o json: token_ids.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddPlaceTo(flags);
    flags->Section("How:");
    flags->AddSwitch("bos", "with the tokens the tokenizer adds, BOS above all (default)", &bos_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    GF_ASSIGN_OR_RETURN(const std::string text, ReadText(arguments, console));
    GF_ASSIGN_OR_RETURN(const Tokens tokens,
                        connection_.router.empty() ? Here(text) : AtRouter(text, console));
    if (output_.json()) {
      PrintJson(TokenIdsJson(tokens.ids), console->out);
      return absl::OkStatus();
    }
    Table table({">id", "token"});
    for (size_t i = 0; i < tokens.ids.size(); ++i) {
      table.AddRow({absl::StrCat(tokens.ids[i]), Quoted(tokens.bytes[i])});
    }
    table.Print(console->out);
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Tokens> Here(const std::string& text) const {
    const auto tokenizer = Tokenizer::Load(connection_.model);
    if (!tokenizer.ok()) return ModelFolderError(connection_.model, tokenizer.status());
    Tokens tokens;
    GF_ASSIGN_OR_RETURN(tokens.ids, (*tokenizer)->Encode(text, {.add_special_tokens = bos_}));
    for (const int32_t id : tokens.ids) tokens.bytes.push_back((*tokenizer)->TokenBytes(id));
    return tokens;
  }

  absl::StatusOr<Tokens> AtRouter(const std::string& text, Console* console) const {
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    inference::v1::TokenizeRequest request;
    request.mutable_prompt()->set_text(text);
    request.mutable_prompt()->set_add_special_tokens(bos_);
    Call call(*connection);
    inference::v1::TokenizeResponse response;
    GF_RETURN_IF_ERROR(connection->ToStatus(
        connection->inference()->Tokenize(call.context(), request, &response)));
    if (response.tokens_size() != response.token_ids_size()) {
      return absl::InternalError(absl::StrCat("the answer has ", response.token_ids_size(),
                                              " ids and ", response.tokens_size(), " tokens"));
    }
    return Tokens{{response.token_ids().begin(), response.token_ids().end()},
                  {response.tokens().begin(), response.tokens().end()}};
  }

  ConnectionFlags connection_;
  OutputFlag output_;
  bool bos_ = true;
};

}  // namespace

std::unique_ptr<Verb> MakeTokenizeVerb() { return std::make_unique<TokenizeVerb>(); }

}  // namespace gatefold::cli

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/prompt_flags.h"
#include "cli/token_ids.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/model/model_config.h"
#include "gatefold/tokenizer/tokenizer.h"

namespace gatefold::cli {
namespace {

class DetokenizeVerb final : public Verb {
 public:
  absl::string_view name() const override { return "detokenize"; }
  absl::string_view summary() const override { return "Turns token ids into text."; }
  absl::string_view details() const override {
    return "Without --tokens and --tokens-file the ids come from standard input, as 1,5,9 or as a\n"
           "JSON list. With --model only the tokenizer's files in DIR are needed. With -o json:\n"
           "text.\n";
  }

  void AddFlags(FlagSet* flags) override {
    connection_.AddPlaceTo(flags);
    flags->Section("What:");
    tokens_.AddTo(flags);
    flags->AddSwitch("skip-special", "leave special tokens out", &skip_special_);
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    if (!arguments.empty()) return UsageError("token ids are given with --tokens");
    if (!tokens_.given(flags)) tokens_.tokens_file = "-";
    GF_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokens_.Read(console));
    GF_ASSIGN_OR_RETURN(const std::string text,
                        connection_.router.empty() ? Here(ids) : AtRouter(ids, console));
    if (output_.json()) {
      PrintJson(TextJson(text), console->out);
    } else {
      console->out << text << "\n";
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<std::string> Here(const std::vector<int32_t>& ids) const {
    const auto tokenizer = Tokenizer::Load(connection_.model);
    if (!tokenizer.ok()) return ModelFolderError(connection_.model, tokenizer.status());
    // A model may have more ids than its tokenizer, which decode to nothing; here only the
    // tokenizer need be there.
    const auto config = ReadModelConfig(connection_.model);
    const int n_ids = std::max((*tokenizer)->vocab_size(), config.ok() ? config->vocab_size : 0);
    for (size_t i = 0; i < ids.size(); ++i) {
      if (ids[i] < 0 || ids[i] >= n_ids) {
        return absl::InvalidArgumentError(
            absl::StrCat("token_ids[", i, "] is ", ids[i], ", must be within 0 and ", n_ids - 1));
      }
    }
    return (*tokenizer)->Decode(ids, skip_special_);
  }

  absl::StatusOr<std::string> AtRouter(const std::vector<int32_t>& ids, Console* console) const {
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    inference::v1::DetokenizeRequest request;
    request.mutable_token_ids()->Assign(ids.begin(), ids.end());
    request.set_skip_special_tokens(skip_special_);
    Call call(*connection);
    inference::v1::DetokenizeResponse response;
    GF_RETURN_IF_ERROR(connection->ToStatus(
        connection->inference()->Detokenize(call.context(), request, &response)));
    return response.text();
  }

  ConnectionFlags connection_;
  TokenFlags tokens_;
  OutputFlag output_;
  bool skip_special_ = false;
};

}  // namespace

std::unique_ptr<Verb> MakeDetokenizeVerb() { return std::make_unique<DetokenizeVerb>(); }

}  // namespace gatefold::cli

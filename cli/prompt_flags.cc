#include "cli/prompt_flags.h"

#include <fstream>

#include "absl/strings/str_cat.h"
#include "cli/error_report.h"
#include "cli/token_ids.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"

namespace gatefold::cli {

absl::StatusOr<std::string> ReadAll(std::istream& in, const std::string& name) {
  std::string content;
  std::vector<char> block(size_t{64} << 10);
  while (in.read(block.data(), static_cast<std::streamsize>(block.size())) || in.gcount() > 0) {
    content.append(block.data(), static_cast<size_t>(in.gcount()));
    if (content.size() > kMaxInputBytes) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " has more than ", kMaxInputBytes, " bytes"));
    }
  }
  if (in.bad()) return absl::DataLossError(absl::StrCat(name, " could not be read"));
  return content;
}

absl::StatusOr<std::string> ReadText(const std::vector<std::string>& arguments, Console* console) {
  if (arguments.size() > 1) {
    return UsageError(
        absl::StrCat("there are ", arguments.size(), " arguments; put quotes around the text"));
  }
  std::string text;
  if (arguments.empty() || arguments[0] == "-") {
    if (console->in_is_terminal) console->err << "(reading text; Ctrl-D on a new line ends it)\n";
    GF_ASSIGN_OR_RETURN(text, ReadAll(console->in, "standard input"));
  } else {
    text = arguments[0];
  }
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != kValidUtf8) {
    return absl::InvalidArgumentError(absl::StrCat("the text is not UTF-8 at byte ", invalid));
  }
  return text;
}

void TokenFlags::AddTo(FlagSet* flags) {
  flags->Add("tokens", "IDS", "token ids, as 1,5,9", &tokens);
  flags->Add("tokens-file", "FILE", "token ids as a JSON list; - is standard input", &tokens_file);
}

bool TokenFlags::given(const FlagSet& flags) const {
  return !tokens.empty() || !tokens_file.empty() || flags.OnCommandLine("tokens");
}

absl::StatusOr<std::vector<int32_t>> TokenFlags::Read(Console* console) const {
  if (tokens_file.empty()) return tokens;
  if (!tokens.empty()) return UsageError("--tokens and --tokens-file exclude each other");
  std::string content, name = tokens_file;
  if (tokens_file == "-") {
    name = "standard input";
    GF_ASSIGN_OR_RETURN(content, ReadAll(console->in, name));
  } else {
    std::ifstream file(tokens_file, std::ios::binary);
    if (!file) return UsageError(absl::StrCat("--tokens-file: cannot open ", tokens_file));
    GF_ASSIGN_OR_RETURN(content, ReadAll(file, tokens_file));
  }
  absl::StatusOr<std::vector<int32_t>> ids = ParseTokenIds(content);
  if (!ids.ok()) return UsageError(absl::StrCat(name, ": ", ids.status().message()));
  return ids;
}

void PromptFlags::AddTo(FlagSet* flags) {
  flags->Section("The prompt: an argument, or standard input (to the last byte), or:");
  tokens.AddTo(flags);
  flags->AddSwitch("bos", "of text: with the tokens the tokenizer adds, BOS above all (default)",
                   &bos);
}

absl::StatusOr<inference::v1::Prompt> PromptFlags::Read(const FlagSet& flags,
                                                        const std::vector<std::string>& arguments,
                                                        Console* console) const {
  inference::v1::Prompt prompt;
  if (tokens.given(flags)) {
    if (!arguments.empty()) return UsageError("give text or token ids, not both");
    GF_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokens.Read(console));
    if (ids.empty()) return UsageError("the list of token ids is empty");
    prompt.mutable_token_ids()->mutable_ids()->Assign(ids.begin(), ids.end());
    return prompt;
  }
  GF_ASSIGN_OR_RETURN(*prompt.mutable_text(), ReadText(arguments, console));
  prompt.set_add_special_tokens(bos);
  return prompt;
}

}  // namespace gatefold::cli

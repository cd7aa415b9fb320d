// Finds the tokenizer's files in a model folder.

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/tokenizer/tokenizer.h"

namespace gatefold {
namespace {

constexpr size_t kMaxFileBytes = size_t{128} << 20;

absl::StatusOr<TokenizerConfig> LoadConfig(const std::string& model_dir) {
  const auto text = ReadSmallFile(model_dir + "/tokenizer_config.json", kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return TokenizerConfig();
  GF_RETURN_IF_ERROR(text.status());
  return ReadTokenizerConfig(*text);
}

// A SentencePiece model starts with the key of its first piece, a tiktoken file with base64.
bool IsSentencePiece(absl::string_view file) { return !file.empty() && file[0] == '\n'; }

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& model_dir) {
  GF_ASSIGN_OR_RETURN(const TokenizerConfig config, LoadConfig(model_dir));
  auto file = ReadSmallFile(model_dir + "/tokenizer.json", kMaxFileBytes);
  if (file.ok()) {
    GF_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, FromJson(*file));
    tokenizer->UseNames(config);
    return tokenizer;
  }
  if (!absl::IsNotFound(file.status())) return file.status();
  file = ReadSmallFile(model_dir + "/tokenizer.model", kMaxFileBytes);
  if (file.ok()) {
    return IsSentencePiece(*file) ? FromSentencePiece(*file, config)
                                  : FromTiktoken(*file, TiktokenKind::kLlama3, config);
  }
  if (!absl::IsNotFound(file.status())) return file.status();
  file = ReadSmallFile(model_dir + "/qwen.tiktoken", kMaxFileBytes);
  if (file.ok()) return FromTiktoken(*file, TiktokenKind::kQwen, config);
  if (!absl::IsNotFound(file.status())) return file.status();
  return absl::NotFoundError(
      absl::StrCat(model_dir, " has no tokenizer.json, tokenizer.model or qwen.tiktoken"));
}

}  // namespace gatefold

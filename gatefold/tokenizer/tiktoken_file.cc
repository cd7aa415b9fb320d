// Reads tiktoken files: a line "base64 rank" for each token, where the rank is also the id.

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/tokenizer/tokenizer.h"
#include "gatefold/tokenizer/vocabulary.h"

namespace gatefold {
namespace {

struct Entry {
  std::string bytes;
  int64_t rank;
};

absl::StatusOr<std::vector<Entry>> ReadLines(absl::string_view lines) {
  std::vector<Entry> entries;
  int number = 0;
  for (const absl::string_view line : absl::StrSplit(lines, '\n')) {
    ++number;
    if (line.empty()) continue;
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    Entry entry;
    int32_t rank = 0;
    if (fields.size() != 2 || !absl::Base64Unescape(fields[0], &entry.bytes) ||
        entry.bytes.empty() || !absl::SimpleAtoi(fields[1], &rank)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tiktoken file: line ", number, " is not a token in base64 and its rank"));
    }
    entry.rank = rank;
    entries.push_back(std::move(entry));
  }
  return entries;
}

AddedToken Special(int64_t id, std::string content) {
  AddedToken token;
  token.id = static_cast<int32_t>(id);
  token.content = std::move(content);
  token.special = true;
  return token;
}

// The names come from the models' own code; they are in no file beside this one.
std::vector<AddedToken> Llama3Specials(int64_t first_id) {
  std::vector<AddedToken> tokens;
  int n_reserved = 0;
  for (int i = 0; i < 256; ++i) {
    std::string name = i == 0   ? "begin_of_text"
                       : i == 1 ? "end_of_text"
                       : i == 6 ? "start_header_id"
                       : i == 7 ? "end_header_id"
                       : i == 9 ? "eot_id"
                                : absl::StrCat("reserved_special_token_", n_reserved++);
    tokens.push_back(Special(first_id + i, absl::StrCat("<|", name, "|>")));
  }
  return tokens;
}

std::vector<AddedToken> QwenSpecials(int64_t first_id) {
  std::vector<AddedToken> tokens = {Special(first_id, "<|endoftext|>"),
                                    Special(first_id + 1, "<|im_start|>"),
                                    Special(first_id + 2, "<|im_end|>")};
  for (int i = 0; i < 205; ++i) {
    tokens.push_back(Special(first_id + 3 + i, absl::StrCat("<|extra_", i, "|>")));
  }
  return tokens;
}

std::vector<AddedToken> SpecialsFor(TiktokenKind kind, int64_t first_id,
                                    const TokenizerConfig& config) {
  if (!config.added_tokens.empty()) return config.added_tokens;
  return kind == TiktokenKind::kQwen ? QwenSpecials(first_id) : Llama3Specials(first_id);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromTiktoken(absl::string_view lines,
                                                                   TiktokenKind kind,
                                                                   const TokenizerConfig& config) {
  GF_ASSIGN_OR_RETURN(const std::vector<Entry> entries, ReadLines(lines));
  std::vector<int64_t> ids;
  int64_t first_special = 0;
  for (const Entry& entry : entries) {
    ids.push_back(entry.rank);
    first_special = std::max(first_special, entry.rank + 1);
  }
  std::vector<AddedToken> added = SpecialsFor(kind, first_special, config);
  for (const AddedToken& token : added) ids.push_back(token.id);
  GF_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::ForIds(ids, "tiktoken file"));

  Parts parts;
  parts.bpe.byte_level = true;
  parts.bpe.ignore_merges = true;
  parts.bpe.texts.resize(vocabulary.spellings.size());
  std::vector<int32_t> ranks(vocabulary.spellings.size(), -1);
  for (const Entry& entry : entries) {
    const auto id = static_cast<int32_t>(entry.rank);
    GF_RETURN_IF_ERROR(Annotate(parts.bpe.Add(id, entry.bytes), "tiktoken file"));
    GF_RETURN_IF_ERROR(Annotate(vocabulary.Add(id, entry.bytes), "tiktoken file"));
    ranks[id] = id;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (parts.bpe.ids.contains(std::string(1, static_cast<char>(byte)))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tiktoken file: byte ", byte, " is no token of its own"));
  }
  parts.bpe.DeriveMerges(ranks);
  for (const AddedToken& token : added) {
    GF_RETURN_IF_ERROR(Annotate(vocabulary.Add(token.id, token.content), "special tokens"));
  }
  if (kind == TiktokenKind::kQwen) parts.normalizer = Normalizer::Nfc();
  GF_ASSIGN_OR_RETURN(
      parts.pre_tokenizer,
      PreTokenizer::ByteLevel(kind == TiktokenKind::kQwen ? kQwen2Pattern : kLlama3Pattern));
  GF_ASSIGN_OR_RETURN(parts.added, AddedTokens::Create(std::move(added), Normalizer()));
  parts.decode = DecodeTable::OfBytes(vocabulary.spellings, SpecialSpellings(parts.added.tokens()));
  parts.ids = std::move(vocabulary.ids);

  const std::string bos = !config.bos_token.empty() || kind == TiktokenKind::kQwen
                              ? config.bos_token
                              : "<|begin_of_text|>";
  const auto bos_id = parts.ids.find(bos);
  if (bos_id != parts.ids.end()) {
    parts.bos_id = bos_id->second;
    if (config.add_bos_token.value_or(true)) parts.prefix_ids = {bos_id->second};
  }
  auto tokenizer = std::make_unique<Tokenizer>(std::move(parts));
  tokenizer->UseNames(config);
  return tokenizer;
}

}  // namespace gatefold

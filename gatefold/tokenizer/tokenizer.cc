#include "gatefold/tokenizer/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/text_assembler.h"

namespace gatefold {
namespace {

constexpr size_t kMaxTextBytes = size_t{64} << 20;
constexpr size_t kMaxNormalizedBytes = size_t{512} << 20;

}  // namespace

Tokenizer::Tokenizer(Parts parts)
    : normalizer_(std::move(parts.normalizer)),
      pre_tokenizer_(std::move(parts.pre_tokenizer)),
      added_(std::move(parts.added)),
      bpe_(std::move(parts.bpe)),
      decode_(std::move(parts.decode)),
      prefix_ids_(std::move(parts.prefix_ids)),
      suffix_ids_(std::move(parts.suffix_ids)),
      ids_(std::move(parts.ids)),
      is_special_(decode_.size(), false),
      bos_id_(parts.bos_id),
      eos_ids_(std::move(parts.eos_ids)) {
  for (const AddedToken& token : added_.tokens()) is_special_[token.id] = token.special;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("text of ", text.size(), " bytes; at most ", kMaxTextBytes));
  }
  if (const size_t offset = FindInvalidUtf8(text); offset != kValidUtf8) {
    return absl::InvalidArgumentError(absl::StrCat("text is not UTF-8 at byte ", offset));
  }
  std::vector<int32_t> ids;
  if (options.add_special_tokens) ids = prefix_ids_;
  RegexScratch regex;
  Bpe::Scratch bpe;
  std::vector<AddedTokens::Part> parts;
  added_.Cut(text, /*normalized=*/false, options.parse_special_tokens, &parts);
  for (const AddedTokens::Part& part : parts) {
    if (part.id != AddedTokens::kText) {
      ids.push_back(part.id);
      continue;
    }
    const absl::string_view raw = text.substr(part.span.begin, part.span.end - part.span.begin);
    GF_RETURN_IF_ERROR(
        EncodePart(raw, part.span.begin == 0, options.parse_special_tokens, &regex, &bpe, &ids));
  }
  if (options.add_special_tokens) ids.insert(ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  return ids;
}

absl::Status Tokenizer::EncodePart(absl::string_view part, bool starts_input, bool with_special,
                                   RegexScratch* regex, Bpe::Scratch* bpe,
                                   std::vector<int32_t>* ids) const {
  std::string text(part);
  GF_RETURN_IF_ERROR(normalizer_.Apply(regex, &text));
  if (text.size() > kMaxNormalizedBytes) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "text of ", text.size(), " bytes once normalised; at most ", kMaxNormalizedBytes));
  }
  std::vector<AddedTokens::Part> parts;
  added_.Cut(text, /*normalized=*/true, with_special, &parts);
  for (const AddedTokens::Part& cut : parts) {
    if (cut.id != AddedTokens::kText) {
      ids->push_back(cut.id);
      continue;
    }
    PieceList list;
    list.starts_input = starts_input && cut.span.begin == 0;
    list.text = parts.size() == 1 ? std::move(text)
                                  : text.substr(cut.span.begin, cut.span.end - cut.span.begin);
    list.pieces = {{0, list.text.size()}};
    GF_RETURN_IF_ERROR(pre_tokenizer_.Apply(regex, &list));
    for (const Span& piece : list.pieces) {
      bpe_.Encode(absl::string_view(list.text.data() + piece.begin, piece.end - piece.begin), bpe,
                  ids);
    }
  }
  return absl::OkStatus();
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const {
  TextAssembler assembler(&decode_, skip_special_tokens);
  for (const int32_t id : ids) assembler.Add(id);
  std::string text;
  assembler.TakeAll(&text);
  return text;
}

void Tokenizer::UseNames(const TokenizerConfig& config) {
  if (const auto id = TokenToId(config.bos_token)) bos_id_ = id;
  if (const auto id = TokenToId(config.eos_token)) eos_ids_ = {*id};
}

std::string Tokenizer::TokenBytes(int32_t id) const {
  return Knows(id) ? std::string(decode_.Text(id)) : std::string();
}

std::optional<int32_t> Tokenizer::TokenToId(absl::string_view spelling) const {
  const auto it = ids_.find(spelling);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

}  // namespace gatefold

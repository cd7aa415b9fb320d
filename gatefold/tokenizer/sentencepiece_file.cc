// Makes a tokenizer of a SentencePiece model.

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/tokenizer/sentencepiece_model.h"
#include "gatefold/tokenizer/tokenizer.h"
#include "gatefold/tokenizer/vocabulary.h"

namespace gatefold {
namespace {

// Dense ranks of the scores, the highest first; -1 for pieces that merging never makes.
std::vector<int32_t> RanksOf(const std::vector<SentencePiece>& pieces) {
  std::vector<float> scores;
  for (const SentencePiece& piece : pieces) {
    if (piece.type == kNormal) scores.push_back(piece.score);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  std::vector<int32_t> ranks(pieces.size(), -1);
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].type != kNormal) continue;
    const auto it =
        std::lower_bound(scores.begin(), scores.end(), pieces[i].score, std::greater<>());
    ranks[i] = static_cast<int32_t>(it - scores.begin());
  }
  return ranks;
}

nlohmann::json DecoderOf(const SentencePieceModel& model) {
  using nlohmann::json;
  json steps = json::array();
  steps.push_back(
      {{"type", "Replace"}, {"pattern", {{"String", "\xE2\x96\x81"}}}, {"content", " "}});
  if (model.byte_fallback) steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  const int n_stripped = model.remove_extra_whitespaces ? 1 << 20 : model.add_dummy_prefix ? 1 : 0;
  steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", n_stripped}, {"stop", 0}});
  return {{"type", "Sequence"}, {"decoders", steps}};
}

class Builder {
 public:
  Builder(const SentencePieceModel& model, const TokenizerConfig& config)
      : model_(model), config_(config) {}

  absl::StatusOr<Tokenizer::Parts> Build() {
    GF_RETURN_IF_ERROR(AddPieces());
    parts_.bpe.DeriveMerges(RanksWithHoles());
    parts_.bpe.unknown_last = true;
    parts_.bpe.fuse_unk = true;
    parts_.normalizer =
        Normalizer::SentencePiece(model_.add_dummy_prefix, model_.remove_extra_whitespaces);
    // User-defined pieces are spelled as in normalised text already.
    GF_ASSIGN_OR_RETURN(parts_.added, AddedTokens::Create(std::move(added_), Normalizer()));
    GF_ASSIGN_OR_RETURN(parts_.decode,
                        DecodeTable::Create(DecoderOf(model_), vocabulary_.spellings,
                                            SpecialSpellings(parts_.added.tokens())));
    parts_.ids = std::move(vocabulary_.ids);
    if (IsControl(model_.bos_id)) {
      parts_.bos_id = static_cast<int32_t>(model_.bos_id);
      if (config_.add_bos_token.value_or(true)) parts_.prefix_ids = {*parts_.bos_id};
    }
    if (IsControl(model_.eos_id)) {
      parts_.eos_ids = {static_cast<int32_t>(model_.eos_id)};
      if (config_.add_eos_token.value_or(false)) parts_.suffix_ids = parts_.eos_ids;
    }
    return std::move(parts_);
  }

 private:
  bool IsControl(int64_t id) const {
    return id >= 0 && id < static_cast<int64_t>(model_.pieces.size()) &&
           model_.pieces[id].type == kControl;
  }

  absl::Status AddPieces() {
    std::vector<int64_t> ids;
    for (size_t i = 0; i < model_.pieces.size(); ++i) ids.push_back(static_cast<int64_t>(i));
    for (const AddedToken& token : config_.added_tokens) ids.push_back(token.id);
    GF_ASSIGN_OR_RETURN(vocabulary_, Vocabulary::ForIds(ids, "pieces and added_tokens_decoder"));
    parts_.bpe.texts.resize(vocabulary_.spellings.size());
    if (model_.byte_fallback) parts_.bpe.byte_ids.assign(256, kNoToken);
    for (size_t i = 0; i < model_.pieces.size(); ++i) {
      const absl::Status added = AddPiece(model_.pieces[i], static_cast<int32_t>(i));
      if (!added.ok()) return Annotate(added, absl::StrCat("pieces[", i, "]"));
    }
    for (const AddedToken& token : config_.added_tokens) {
      if (vocabulary_.ids.contains(token.content)) continue;
      GF_RETURN_IF_ERROR(
          Annotate(vocabulary_.Add(token.id, token.content), "added_tokens_decoder"));
      added_.push_back(token);
    }
    return absl::OkStatus();
  }

  absl::Status AddPiece(const SentencePiece& piece, int32_t id) {
    if (piece.text.empty()) return absl::InvalidArgumentError("empty piece");
    GF_RETURN_IF_ERROR(vocabulary_.Add(id, piece.text));
    AddedToken token;
    token.id = id;
    token.content = piece.text;
    switch (piece.type) {
      case kNormal:
        return parts_.bpe.Add(id, piece.text);
      case kUnknown:
        parts_.bpe.unk_id = id;
        [[fallthrough]];
      case kControl:
        token.special = true;
        added_.push_back(std::move(token));
        return absl::OkStatus();
      case kUserDefined:
        token.normalized = true;
        added_.push_back(std::move(token));
        return absl::OkStatus();
      case kByte:
        return AddByte(piece.text, id);
      case kUnused:
        return FeatureUnsupported("an unused piece");
      default:
        return absl::InvalidArgumentError(absl::StrCat("unknown type ", piece.type));
    }
  }

  absl::Status AddByte(absl::string_view text, int32_t id) {
    const std::string digits(text.substr(0, 3) == "<0x" ? text.substr(3) : "");
    char* end = nullptr;
    const unsigned long byte = std::strtoul(digits.c_str(), &end, 16);
    if (digits.size() != 3 || end != digits.c_str() + 2 || *end != '>' || byte > 255) {
      return absl::InvalidArgumentError("a byte piece is not <0xHH>");
    }
    if (model_.byte_fallback) parts_.bpe.byte_ids[byte] = id;
    return absl::OkStatus();
  }

  std::vector<int32_t> RanksWithHoles() const {
    std::vector<int32_t> ranks = RanksOf(model_.pieces);
    ranks.resize(parts_.bpe.texts.size(), -1);
    return ranks;
  }

  const SentencePieceModel& model_;
  const TokenizerConfig& config_;
  Vocabulary vocabulary_;
  std::vector<AddedToken> added_;
  Tokenizer::Parts parts_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromSentencePiece(
    absl::string_view file, const TokenizerConfig& config) {
  auto model = ReadSentencePieceModel(file);
  if (!model.ok()) return Annotate(model.status(), "tokenizer.model");
  auto parts = Builder(*model, config).Build();
  if (!parts.ok()) return Annotate(parts.status(), "tokenizer.model");
  auto tokenizer = std::make_unique<Tokenizer>(*std::move(parts));
  tokenizer->UseNames(config);
  return tokenizer;
}

}  // namespace gatefold

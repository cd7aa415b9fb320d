// Reads tokenizer.json.

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/byte_chars.h"
#include "gatefold/tokenizer/json_fields.h"
#include "gatefold/tokenizer/post_processor.h"
#include "gatefold/tokenizer/tokenizer.h"
#include "gatefold/tokenizer/vocabulary.h"

namespace gatefold {
namespace {

using nlohmann::json;

// The largest real files have 30 MB and 1.5 million values.
constexpr JsonLimits kLimits{size_t{128} << 20, 64, 4'000'000};

class Reader {
 public:
  explicit Reader(const json& root)
      : root_(root, ""), model_(root_.RequiredObject("model"), "model") {}

  absl::StatusOr<Tokenizer::Parts> Read() {
    GF_RETURN_IF_ERROR(root_.status());
    GF_RETURN_IF_ERROR(CheckModel());
    GF_ASSIGN_OR_RETURN(parts_.normalizer, Normalizer::FromJson(Section("normalizer")));
    GF_ASSIGN_OR_RETURN(parts_.pre_tokenizer, PreTokenizer::FromJson(Section("pre_tokenizer")));
    GF_RETURN_IF_ERROR(ReadVocabulary());
    GF_RETURN_IF_ERROR(ReadModel());
    GF_RETURN_IF_ERROR(ReadMerges());
    GF_RETURN_IF_ERROR(ReadDecoder());
    GF_ASSIGN_OR_RETURN(PostProcessor around,
                        PostProcessor::FromJson(Section("post_processor"),
                                                static_cast<int>(vocabulary_.spellings.size())));
    if (!around.prefix_ids.empty()) parts_.bos_id = around.prefix_ids[0];
    parts_.prefix_ids = std::move(around.prefix_ids);
    parts_.suffix_ids = std::move(around.suffix_ids);
    parts_.ids = std::move(vocabulary_.ids);
    return std::move(parts_);
  }

 private:
  const json& Section(const char* key) const {
    static const json* const kNull = new json;
    const json* section = root_.Find(key);
    return section == nullptr ? *kNull : *section;
  }

  absl::Status CheckModel() {
    // Old files do not name the type; only BPE has merges.
    const std::string type =
        model_.StringOr("type", model_.Find("merges") != nullptr ? "BPE" : "of no type");
    if (type != "BPE") model_.RefuseFeature(absl::StrCat("model ", PrintableName(type)));
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!model_.StringOr(key, "").empty()) model_.RefuseFeature(key);
    }
    const json* dropout = model_.Find("dropout");
    if (dropout != nullptr && *dropout != 0.0) model_.RefuseFeature("dropout");
    return model_.status();
  }

  absl::Status ReadVocabulary() {
    const json& vocab = model_.RequiredObject("vocab");
    GF_RETURN_IF_ERROR(model_.status());
    std::vector<int64_t> ids;
    ids.reserve(vocab.size());
    for (const auto& [spelling, id] : vocab.items()) {
      // Anything else than a small whole number is out of range.
      const auto* number = id.get_ptr<const json::number_unsigned_t*>();
      ids.push_back(number != nullptr && *number < INT32_MAX ? static_cast<int64_t>(*number) : -1);
    }
    std::vector<AddedToken> added;
    if (root_.Find("added_tokens") != nullptr) {
      int index = 0;
      for (const json& value : root_.RequiredArray("added_tokens")) {
        JsonFields fields(value, absl::StrCat("added_tokens[", index++, "]"));
        AddedToken token = ReadAddedToken(&fields);
        token.id = static_cast<int32_t>(fields.RequiredInt("id", 0, INT32_MAX));
        GF_RETURN_IF_ERROR(fields.status());
        ids.push_back(token.id);
        added.push_back(std::move(token));
      }
    }
    GF_RETURN_IF_ERROR(root_.status());
    GF_ASSIGN_OR_RETURN(vocabulary_, Vocabulary::ForIds(ids, "model.vocab and added_tokens"));
    size_t i = 0;
    for (const auto& [spelling, id] : vocab.items()) {
      GF_RETURN_IF_ERROR(
          Annotate(vocabulary_.Add(static_cast<int32_t>(ids[i++]), spelling), "model.vocab"));
    }
    model_ids_ = vocabulary_.ids;
    for (const AddedToken& token : added) {
      GF_RETURN_IF_ERROR(Annotate(vocabulary_.Add(token.id, token.content), "added_tokens"));
    }
    GF_ASSIGN_OR_RETURN(parts_.added, AddedTokens::Create(std::move(added), parts_.normalizer));
    return absl::OkStatus();
  }

  absl::Status ReadModel() {
    BpeTable& bpe = parts_.bpe;
    bpe.byte_level = parts_.pre_tokenizer.byte_level();
    bpe.ignore_merges = model_.BoolOr("ignore_merges", false);
    bpe.fuse_unk = model_.BoolOr("fuse_unk", false);
    bpe.texts.resize(vocabulary_.spellings.size());
    for (const auto& [spelling, id] : model_ids_) {
      if (!bpe.byte_level) {
        GF_RETURN_IF_ERROR(bpe.Add(id, spelling));
      } else if (const auto bytes = BytesOfToken(spelling)) {
        // A token with other characters cannot come out of text that is mapped to bytes.
        GF_RETURN_IF_ERROR(bpe.Add(id, *bytes));
      }
    }
    if (model_.BoolOr("byte_fallback", false)) {
      for (int byte = 0; byte < 256; ++byte) {
        bpe.byte_ids.push_back(ModelId(absl::StrFormat("<0x%02X>", byte)));
      }
    }
    const std::string unk = model_.StringOr("unk_token", "");
    if (!unk.empty()) {
      bpe.unk_id = ModelId(unk);
      if (bpe.unk_id == kNoToken) {
        model_.Refuse("unk_token", absl::StrCat("\"", PrintableName(unk), "\" is not in vocab"));
      }
    }
    return model_.status();
  }

  int32_t ModelId(absl::string_view spelling) const {
    const auto it = model_ids_.find(spelling);
    return it == model_ids_.end() ? kNoToken : it->second;
  }

  absl::Status ReadMerges() {
    const json& merges = model_.RequiredArray("merges");
    GF_RETURN_IF_ERROR(model_.status());
    parts_.bpe.merges.reserve(merges.size());
    for (size_t i = 0; i < merges.size(); ++i) {
      GF_RETURN_IF_ERROR(ReadMerge(merges[i], static_cast<int32_t>(i)));
    }
    return absl::OkStatus();
  }

  absl::Status ReadMerge(const json& merge, int32_t rank) {
    const auto refuse = [rank](absl::string_view why) {
      return absl::InvalidArgumentError(absl::StrCat("model.merges[", rank, "]: ", why));
    };
    absl::string_view left, right;
    if (const auto* text = merge.get_ptr<const std::string*>()) {
      const size_t space = text->find(' ');
      if (space == std::string::npos || text->find(' ', space + 1) != std::string::npos) {
        return refuse(absl::StrCat("\"", PrintableName(*text), "\" is not two tokens"));
      }
      left = absl::string_view(*text).substr(0, space);
      right = absl::string_view(*text).substr(space + 1);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = *merge[0].get_ptr<const std::string*>();
      right = *merge[1].get_ptr<const std::string*>();
    } else {
      return refuse("neither \"left right\" nor [left, right]");
    }
    const std::string merged = absl::StrCat(left, right);
    const MergeRule rule{ModelId(left), ModelId(right), ModelId(merged), rank};
    if (rule.left == kNoToken) return refuse(NotInVocabulary(left));
    if (rule.right == kNoToken) return refuse(NotInVocabulary(right));
    if (rule.id == kNoToken) return refuse(NotInVocabulary(merged));
    parts_.bpe.merges.push_back(rule);
    return absl::OkStatus();
  }

  static std::string NotInVocabulary(absl::string_view spelling) {
    return absl::StrCat("\"", PrintableName(spelling), "\" is not in vocab");
  }

  absl::Status ReadDecoder() {
    // The reference decodes an added token in its normalised spelling.
    std::vector<std::string> spellings = vocabulary_.spellings;
    const std::vector<AddedToken>& added = parts_.added.tokens();
    for (size_t i = 0; i < added.size(); ++i) {
      spellings[added[i].id] = parts_.added.SpellingOf(static_cast<int>(i));
    }
    GF_ASSIGN_OR_RETURN(
        parts_.decode, DecodeTable::Create(Section("decoder"), spellings, SpecialSpellings(added)));
    return absl::OkStatus();
  }

  JsonFields root_, model_;
  Tokenizer::Parts parts_;
  Vocabulary vocabulary_;
  absl::flat_hash_map<std::string, int32_t> model_ids_;  // without added tokens
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromJson(absl::string_view text) {
  GF_ASSIGN_OR_RETURN(const json root, ParseStrictJson(text, "tokenizer.json", kLimits));
  absl::StatusOr<Parts> parts = Reader(root).Read();
  if (!parts.ok()) return Annotate(parts.status(), "tokenizer.json");
  return std::make_unique<Tokenizer>(*std::move(parts));
}

}  // namespace gatefold

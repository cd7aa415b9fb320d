#include "gatefold/tokenizer/pre_tokenizer.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/char_class.h"

namespace gatefold {
namespace {

constexpr size_t kMaxSteps = 64;

absl::StatusOr<SplitBehavior> BehaviorNamed(const std::string& name, const std::string& path) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return absl::InvalidArgumentError(
      absl::StrCat(path, ".behavior: unknown value \"", PrintableName(name), "\""));
}

// Every character of a class is a match of its own.
void FindInClass(uint8_t classes, absl::string_view text, std::vector<Span>* matches) {
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    if ((CharClassOf(NextCodePoint(text, &i)) & classes) != 0) matches->push_back({begin, i});
  }
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const nlohmann::json& json) {
  PreTokenizer pre_tokenizer;
  if (!json.is_null()) GF_RETURN_IF_ERROR(pre_tokenizer.AddSteps(json, "pre_tokenizer"));
  return pre_tokenizer;
}

absl::StatusOr<PreTokenizer> PreTokenizer::ByteLevel(absl::string_view regex) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.byte_level_ = true;
  GF_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromRegex(regex));
  pre_tokenizer.steps_.push_back({Kind::kSplit, {std::move(pattern)}});
  return pre_tokenizer;
}

absl::Status PreTokenizer::AddSteps(const nlohmann::json& json, const std::string& path) {
  JsonFields fields(json, path);
  const std::string type = fields.RequiredString("type");
  GF_RETURN_IF_ERROR(fields.status());
  if (steps_.size() >= kMaxSteps) {
    fields.RefuseFeature("more than 64 pre-tokenizers");
  } else if (byte_level_) {
    fields.RefuseFeature(absl::StrCat("pre-tokenizer ", PrintableName(type), " after ByteLevel"));
  } else if (type == "Sequence") {
    int index = 0;
    for (const nlohmann::json& part : fields.RequiredArray("pretokenizers")) {
      GF_RETURN_IF_ERROR(AddSteps(part, absl::StrCat(path, "[", index++, "]")));
    }
  } else if (type == "Split") {
    GF_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(&fields, "pattern"));
    GF_ASSIGN_OR_RETURN(const SplitBehavior behavior,
                        BehaviorNamed(fields.RequiredString("behavior"), path));
    steps_.push_back(
        {Kind::kSplit, {std::move(pattern)}, behavior, fields.BoolOr("invert", false)});
  } else if (type == "ByteLevel") {
    return AddByteLevel(&fields);
  } else if (type == "Metaspace") {
    return AddMetaspace(&fields);
  } else if (type == "Digits") {
    steps_.push_back({Kind::kDigits,
                      {},
                      fields.BoolOr("individual_digits", false) ? SplitBehavior::kIsolated
                                                                : SplitBehavior::kContiguous});
  } else if (type == "Punctuation") {
    GF_ASSIGN_OR_RETURN(const SplitBehavior behavior,
                        BehaviorNamed(fields.StringOr("behavior", "Isolated"), path));
    steps_.push_back({Kind::kPunctuation, {}, behavior});
  } else if (type == "WhitespaceSplit") {
    steps_.push_back({Kind::kSpaces, {}, SplitBehavior::kRemoved});
  } else if (type == "Whitespace") {
    steps_.push_back({Kind::kSpaces, {}, SplitBehavior::kRemoved});
    steps_.push_back({Kind::kWords, {}, SplitBehavior::kContiguous});
  } else {
    fields.RefuseFeature(absl::StrCat("pre-tokenizer ", PrintableName(type)));
  }
  return fields.status();
}

absl::Status PreTokenizer::AddByteLevel(JsonFields* fields) {
  byte_level_ = true;
  if (fields->BoolOr("add_prefix_space", true)) steps_.push_back({Kind::kPrefixSpace});
  if (fields->BoolOr("use_regex", true)) {
    GF_ASSIGN_OR_RETURN(Pattern words, Pattern::FromRegex(kGpt2Pattern));
    steps_.push_back({Kind::kSplit, {std::move(words)}});
  }
  return fields->status();
}

absl::Status PreTokenizer::AddMetaspace(JsonFields* fields) {
  Step step{Kind::kMetaspace};
  step.replacement = fields->RequiredString("replacement");
  size_t end = 0;
  if (!step.replacement.empty()) NextCodePoint(step.replacement, &end);
  if (end == 0 || end != step.replacement.size()) {
    fields->Refuse("replacement", "not one character");
  }
  // Older files have add_prefix_space in place of prepend_scheme.
  const std::string scheme = fields->StringOr(
      "prepend_scheme", fields->BoolOr("add_prefix_space", true) ? "always" : "never");
  if (scheme == "always") {
    step.prepend = Prepend::kAlways;
  } else if (scheme == "first") {
    step.prepend = Prepend::kFirst;
  } else if (scheme != "never") {
    fields->Refuse("prepend_scheme", absl::StrCat("unknown value ", PrintableName(scheme)));
  }
  step.split = fields->BoolOr("split", true);
  GF_RETURN_IF_ERROR(fields->status());
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status PreTokenizer::Apply(RegexScratch* scratch, PieceList* list) const {
  for (const Step& step : steps_) {
    switch (step.kind) {
      case Kind::kMetaspace:
        ToMetaspace(step, list);
        break;
      case Kind::kPrefixSpace:
        AddPrefixSpace(list);
        break;
      default:
        GF_RETURN_IF_ERROR(Split(step, scratch, list));
    }
  }
  return absl::OkStatus();
}

absl::Status PreTokenizer::FindMatches(const Step& step, absl::string_view piece,
                                       RegexScratch* scratch, std::vector<Span>* matches) {
  switch (step.kind) {
    case Kind::kDigits:
      FindInClass(kNumeric, piece, matches);
      return absl::OkStatus();
    case Kind::kSpaces:
      FindInClass(kSpace, piece, matches);
      return absl::OkStatus();
    case Kind::kWords:
      FindInClass(kWord, piece, matches);
      return absl::OkStatus();
    case Kind::kPunctuation:
      FindInClass(kPunctuation, piece, matches);
      return absl::OkStatus();
    default:
      return step.pattern.front().FindAll(piece, scratch, matches);
  }
}

absl::Status PreTokenizer::Split(const Step& step, RegexScratch* scratch, PieceList* list) {
  std::vector<Span> cut;
  cut.reserve(list->pieces.size());
  std::vector<Span> matches;
  for (const Span& piece : list->pieces) {
    matches.clear();
    const size_t n_before = cut.size();
    const absl::string_view text(list->text.data() + piece.begin, piece.end - piece.begin);
    GF_RETURN_IF_ERROR(FindMatches(step, text, scratch, &matches));
    SplitAt(matches, text.size(), step.behavior, step.invert, &cut);
    for (size_t i = n_before; i < cut.size(); ++i) {
      cut[i].begin += piece.begin;
      cut[i].end += piece.begin;
    }
  }
  if (cut.empty() || cut.front().begin != list->pieces.front().begin) list->starts_input = false;
  list->pieces = std::move(cut);
  return absl::OkStatus();
}

void PreTokenizer::ToMetaspace(const Step& step, PieceList* list) {
  std::string text;
  text.reserve(list->text.size() * 2);
  std::vector<Span> pieces;
  for (size_t i = 0; i < list->pieces.size(); ++i) {
    const Span& span = list->pieces[i];
    const absl::string_view piece(list->text.data() + span.begin, span.end - span.begin);
    const size_t begin = text.size();
    const bool prepends = step.prepend == Prepend::kAlways ||
                          (step.prepend == Prepend::kFirst && i == 0 && list->starts_input);
    if (prepends && piece[0] != ' ' && !absl::StartsWith(piece, step.replacement)) {
      text += step.replacement;
    }
    absl::StrAppend(&text, absl::StrReplaceAll(piece, {{" ", step.replacement}}));
    if (!step.split) {
      pieces.push_back({begin, text.size()});
      continue;
    }
    const absl::string_view replaced(text.data() + begin, text.size() - begin);
    std::vector<Span> matches;
    (void)Pattern::Literal(step.replacement).FindAll(replaced, nullptr, &matches);
    const size_t n_before = pieces.size();
    SplitAt(matches, replaced.size(), SplitBehavior::kMergedWithNext, /*invert=*/false, &pieces);
    for (size_t k = n_before; k < pieces.size(); ++k) {
      pieces[k].begin += begin;
      pieces[k].end += begin;
    }
  }
  list->text = std::move(text);
  list->pieces = std::move(pieces);
}

void PreTokenizer::AddPrefixSpace(PieceList* list) {
  std::string text;
  text.reserve(list->text.size() + list->pieces.size());
  for (Span& piece : list->pieces) {
    const size_t begin = text.size();
    if (list->text[piece.begin] != ' ') text.push_back(' ');
    text.append(list->text, piece.begin, piece.end - piece.begin);
    piece = {begin, text.size()};
  }
  list->text = std::move(text);
}

}  // namespace gatefold

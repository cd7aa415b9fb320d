#include "gatefold/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/char_class.h"
#include "gatefold/tokenizer/normal_form.h"

namespace gatefold {
namespace {

constexpr absl::string_view kMetaspace = "\xE2\x96\x81";
constexpr size_t kMaxSteps = 64;
// Compatibility decomposition makes at most 11 bytes of one; a file's own replacements are held to
// some more.
constexpr size_t kMaxGrowth = 16;
constexpr size_t kGrowthAllowance = 16 << 10;

template <typename Function>
void MapCodePoints(const Function& append_mapped, std::string* text) {
  std::string mapped;
  mapped.reserve(text->size());
  for (size_t i = 0; i < text->size();) append_mapped(NextCodePoint(*text, &i), &mapped);
  *text = std::move(mapped);
}

void AppendLower(char32_t c, std::string* out) {
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
  // The one capital whose full lower case is two code points.
  if (c == 0x130) {
    out->resize(out->size() - 1);
    out->append("i\xCC\x87");
  }
}

void AppendUnlessAccent(char32_t c, std::string* out) {
  if ((CharClassOf(c) & kMark) == 0) AppendUtf8(c, out);
}

void StripLeft(std::string* text) {
  size_t begin = 0;
  while (begin < text->size()) {
    size_t next = begin;
    if (!IsSpace(NextCodePoint(*text, &next))) break;
    begin = next;
  }
  text->erase(0, begin);
}

void StripRight(std::string* text) {
  while (!text->empty()) {
    size_t last = PreviousBoundary(*text, text->size());
    const size_t begin = last;
    if (!IsSpace(NextCodePoint(*text, &last))) break;
    text->resize(begin);
  }
}

// SentencePiece's rule: no spaces at either end, single ones within.
void CollapseSpaces(std::string* text) {
  std::string collapsed;
  collapsed.reserve(text->size());
  for (const char c : *text) {
    if (c != ' ' || (!collapsed.empty() && collapsed.back() != ' ')) collapsed.push_back(c);
  }
  if (!collapsed.empty() && collapsed.back() == ' ') collapsed.pop_back();
  *text = std::move(collapsed);
}

absl::Status CheckGrowth(size_t n_bytes, size_t max_bytes) {
  if (n_bytes <= max_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("the normalizer makes ", n_bytes, " bytes of this text; at most ", max_bytes));
}

absl::Status ReplaceAll(const Pattern& pattern, absl::string_view content, RegexScratch* scratch,
                        size_t max_bytes, std::string* text) {
  std::vector<Span> matches;
  GF_RETURN_IF_ERROR(pattern.FindAll(*text, scratch, &matches));
  if (matches.empty()) return absl::OkStatus();
  GF_RETURN_IF_ERROR(CheckGrowth(text->size() + matches.size() * content.size(), max_bytes));
  std::string replaced;
  replaced.reserve(text->size() + matches.size() * content.size());
  size_t at = 0;
  for (const Span& match : matches) {
    replaced.append(*text, at, match.begin - at);
    replaced.append(content.data(), content.size());
    at = match.end;
  }
  replaced.append(*text, at, std::string::npos);
  *text = std::move(replaced);
  return absl::OkStatus();
}

}  // namespace

Normalizer Normalizer::Nfc() {
  Normalizer normalizer;
  normalizer.steps_.push_back({Kind::kNormalForm, "", {}, NormalForm::kNfc});
  return normalizer;
}

Normalizer Normalizer::SentencePiece(bool add_dummy_prefix, bool remove_extra_whitespaces) {
  Normalizer normalizer;
  if (remove_extra_whitespaces) normalizer.steps_.push_back({Kind::kCollapseSpaces, "", {}});
  if (add_dummy_prefix) {
    normalizer.steps_.push_back({Kind::kPrepend, std::string(kMetaspace), {}});
  }
  normalizer.steps_.push_back({Kind::kReplace, std::string(kMetaspace), {Pattern::Literal(" ")}});
  if (remove_extra_whitespaces) normalizer.steps_.push_back({Kind::kTrimMetaspaces, "", {}});
  return normalizer;
}

absl::StatusOr<Normalizer> Normalizer::FromJson(const nlohmann::json& json) {
  Normalizer normalizer;
  if (!json.is_null()) GF_RETURN_IF_ERROR(normalizer.AddSteps(json, "normalizer"));
  return normalizer;
}

absl::Status Normalizer::AddSteps(const nlohmann::json& json, const std::string& path) {
  JsonFields fields(json, path);
  const std::string type = fields.RequiredString("type");
  if (steps_.size() >= kMaxSteps) fields.RefuseFeature("more than 64 normalizers");
  GF_RETURN_IF_ERROR(fields.status());
  if (type == "Sequence") {
    int index = 0;
    for (const nlohmann::json& part : fields.RequiredArray("normalizers")) {
      GF_RETURN_IF_ERROR(AddSteps(part, absl::StrCat(path, "[", index++, "]")));
    }
  } else if (type == "NFC") {
    steps_.push_back({Kind::kNormalForm, "", {}, NormalForm::kNfc});
  } else if (type == "NFD") {
    steps_.push_back({Kind::kNormalForm, "", {}, NormalForm::kNfd});
  } else if (type == "NFKC") {
    steps_.push_back({Kind::kNormalForm, "", {}, NormalForm::kNfkc});
  } else if (type == "NFKD") {
    steps_.push_back({Kind::kNormalForm, "", {}, NormalForm::kNfkd});
  } else if (type == "Lowercase") {
    steps_.push_back({Kind::kLowercase, "", {}});
  } else if (type == "StripAccents") {
    steps_.push_back({Kind::kStripAccents, "", {}});
  } else if (type == "Strip") {
    if (fields.BoolOr("strip_left", true)) steps_.push_back({Kind::kStripLeft, "", {}});
    if (fields.BoolOr("strip_right", true)) steps_.push_back({Kind::kStripRight, "", {}});
  } else if (type == "Prepend") {
    steps_.push_back({Kind::kPrepend, fields.RequiredString("prepend"), {}});
  } else if (type == "Replace") {
    GF_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(&fields, "pattern"));
    steps_.push_back({Kind::kReplace, fields.RequiredString("content"), {std::move(pattern)}});
  } else {
    fields.RefuseFeature(absl::StrCat("normalizer ", PrintableName(type)));
  }
  return fields.status();
}

absl::Status Normalizer::Apply(RegexScratch* scratch, std::string* text) const {
  const size_t max_bytes = kMaxGrowth * text->size() + kGrowthAllowance;
  for (const Step& step : steps_) {
    GF_RETURN_IF_ERROR(ApplyStep(step, max_bytes, scratch, text));
  }
  return absl::OkStatus();
}

absl::Status Normalizer::ApplyStep(const Step& step, size_t max_bytes, RegexScratch* scratch,
                                   std::string* text) {
  switch (step.kind) {
    case Kind::kNormalForm:
      Normalize(step.form, text);
      break;
    case Kind::kReplace:
      return ReplaceAll(step.pattern.front(), step.content, scratch, max_bytes, text);
    case Kind::kPrepend:
      if (text->empty()) break;
      GF_RETURN_IF_ERROR(CheckGrowth(text->size() + step.content.size(), max_bytes));
      text->insert(0, step.content);
      break;
    case Kind::kLowercase:
      MapCodePoints(AppendLower, text);
      break;
    case Kind::kStripAccents:
      MapCodePoints(AppendUnlessAccent, text);
      break;
    case Kind::kStripLeft:
      StripLeft(text);
      break;
    case Kind::kStripRight:
      StripRight(text);
      break;
    case Kind::kTrimMetaspaces:
      while (absl::EndsWith(*text, kMetaspace)) text->resize(text->size() - kMetaspace.size());
      break;
    case Kind::kCollapseSpaces:
      CollapseSpaces(text);
      break;
  }
  return absl::OkStatus();
}

}  // namespace gatefold

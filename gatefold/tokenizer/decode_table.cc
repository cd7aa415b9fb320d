#include "gatefold/tokenizer/decode_table.h"

#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/byte_chars.h"

namespace gatefold {
namespace {

constexpr size_t kMaxSteps = 16;
// Replacements may make tokens longer; their sum must stay in proportion.
constexpr size_t kMaxReplacementBytes = 16;

int HexDigit(char c) {
  return absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10;
}

// The byte that `<0xHH>` stands for.
std::optional<char> ByteNamed(absl::string_view token) {
  if (token.size() != 6 || !absl::StartsWith(token, "<0x") || token[5] != '>' ||
      !absl::ascii_isxdigit(token[3]) || !absl::ascii_isxdigit(token[4])) {
    return std::nullopt;
  }
  return static_cast<char>(HexDigit(token[3]) << 4 | HexDigit(token[4]));
}

}  // namespace

absl::StatusOr<DecodeTable> DecodeTable::Create(const nlohmann::json& decoder,
                                                const std::vector<std::string>& spellings,
                                                const absl::flat_hash_set<std::string>& special) {
  DecodeTable table;
  if (decoder.is_null()) {
    table.rule_ = Rule::kSpaced;
  } else {
    GF_RETURN_IF_ERROR(table.AddSteps(decoder, "decoder"));
  }
  table.Fill(spellings, special);
  return table;
}

DecodeTable DecodeTable::OfBytes(const std::vector<std::string>& spellings,
                                 const absl::flat_hash_set<std::string>& special) {
  // As text until the tokens are in place: their bytes are not to be mapped.
  DecodeTable table;
  table.Fill(spellings, special);
  table.rule_ = Rule::kBytes;
  return table;
}

absl::Status DecodeTable::AddSteps(const nlohmann::json& json, const std::string& path) {
  JsonFields fields(json, path);
  const std::string type = fields.RequiredString("type");
  if (steps_.size() >= kMaxSteps) fields.RefuseFeature("more than 16 decoders");
  GF_RETURN_IF_ERROR(fields.status());
  if (type != "Sequence") return AddOneStep(type, &fields);
  int index = 0;
  for (const nlohmann::json& part : fields.RequiredArray("decoders")) {
    GF_RETURN_IF_ERROR(AddSteps(part, absl::StrCat(path, "[", index++, "]")));
  }
  return fields.status();
}

absl::Status DecodeTable::AddOneStep(const std::string& type, JsonFields* fields) {
  const bool on_tokens = !fused_ && rule_ == Rule::kText;
  if (type == "Fuse") {
    fused_ = true;
  } else if (type == "ByteLevel" && on_tokens) {
    rule_ = Rule::kBytes;
    fused_ = true;
  } else if (type == "ByteFallback" && on_tokens) {
    rule_ = Rule::kByteFallback;
  } else if (type == "Replace" && on_tokens) {
    GF_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(fields, "pattern"));
    steps_.push_back({std::move(pattern), fields->RequiredString("content"), false});
    if (steps_.back().content.size() > kMaxReplacementBytes) {
      fields->Refuse("content", absl::StrCat("longer than ", kMaxReplacementBytes, " bytes"));
    }
  } else if (type == "Metaspace" && on_tokens) {
    const std::string scheme = fields->StringOr(
        "prepend_scheme", fields->BoolOr("add_prefix_space", true) ? "always" : "never");
    steps_.push_back({Pattern::Literal(fields->RequiredString("replacement")), " ",
                      /*is_metaspace=*/scheme != "never"});
  } else if (type == "Strip" && fused_ && strip_left_ == 0) {
    strip_content_ = fields->RequiredString("content");
    if (strip_content_.empty()) fields->Refuse("content", "empty");
    strip_left_ = static_cast<int>(fields->RequiredInt("start", 0, 1 << 20));
    if (fields->RequiredInt("stop", 0, 1 << 20) != 0) fields->RefuseFeature("decoder Strip.stop");
  } else if (type == "Replace" || type == "Metaspace" || type == "Strip" || type == "ByteLevel" ||
             type == "ByteFallback") {
    fields->RefuseFeature(absl::StrCat("decoder ", type, " at this place of the sequence"));
  } else {
    fields->RefuseFeature(absl::StrCat("decoder ", PrintableName(type)));
  }
  return fields->status();
}

void DecodeTable::Fill(const std::vector<std::string>& spellings,
                       const absl::flat_hash_set<std::string>& special) {
  RegexScratch scratch;
  bool first_differs = false;
  for (const TokenStep& step : steps_) first_differs = first_differs || step.is_metaspace;
  tokens_.reserve(spellings.size());
  for (const std::string& spelling : spellings) {
    tokens_.push_back(MakeToken(spelling, /*is_first=*/false, &scratch));
    tokens_.back().skippable = special.contains(spelling);
    if (first_differs) first_tokens_.push_back(MakeToken(spelling, /*is_first=*/true, &scratch));
  }
}

DecodeTable::Token DecodeTable::MakeToken(const std::string& spelling, bool is_first,
                                          RegexScratch* scratch) {
  Token token;
  if (spelling.empty()) return token;
  token.known = true;
  std::string text = spelling;
  for (const TokenStep& step : steps_) {
    std::vector<Span> matches;
    // A pattern that is too slow for one token leaves it as it is.
    if (!step.pattern.FindAll(text, scratch, &matches).ok()) continue;
    for (auto match = matches.rbegin(); match != matches.rend(); ++match) {
      text.replace(match->begin, match->end - match->begin,
                   step.is_metaspace && is_first ? "" : step.content);
    }
  }
  if (rule_ == Rule::kBytes) {
    // A token with a character outside of the byte alphabet, such as an added one, is itself.
    if (std::optional<std::string> bytes = BytesOfToken(text)) text = *std::move(bytes);
  } else if (rule_ == Rule::kByteFallback) {
    if (const std::optional<char> byte = ByteNamed(text)) {
      token.is_byte = true;
      text.assign(1, *byte);
    }
  }
  token.begin = static_cast<uint32_t>(chars_.size());
  token.size = static_cast<uint32_t>(text.size());
  chars_ += text;
  GF_CHECK(chars_.size() < (uint64_t{1} << 32));
  return token;
}

}  // namespace gatefold

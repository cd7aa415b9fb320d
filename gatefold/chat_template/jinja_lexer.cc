#include "gatefold/chat_template/jinja_lexer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/chat_template/jinja_text.h"

namespace gatefold::jinja {
namespace {

using Kind = Token::Kind;

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), in_(source_) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < in_.size()) {
      GF_RETURN_IF_ERROR(Text());
      if (at_ == in_.size()) break;
      GF_RETURN_IF_ERROR(in_[at_ + 1] == '#' ? Comment() : Tag());
    }
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", what));
  }
  bool At(absl::string_view what) const { return absl::StartsWith(in_.substr(at_), what); }
  void Add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void Advance(size_t n) {
    line_ += static_cast<int>(std::count(in_.begin() + at_, in_.begin() + at_ + n, '\n'));
    at_ += n;
  }
  void SkipSpaces() {
    const absl::string_view rest = in_.substr(at_);
    Advance(rest.size() - Strip(rest, "", Side::kLeft).size());
  }

  static size_t FindTag(absl::string_view text, size_t from) {
    for (size_t i = from; i + 1 < text.size(); ++i) {
      if (text[i] == '{' && (text[i + 1] == '%' || text[i + 1] == '{' || text[i + 1] == '#')) {
        return i;
      }
    }
    return text.size();
  }

  // Text up to the next tag, at which it leaves `at_`.
  absl::Status Text() {
    const size_t tag = FindTag(in_, at_);
    absl::string_view text = in_.substr(at_, tag - at_);
    if (tag < in_.size()) {
      const char sign = tag + 2 < in_.size() ? in_[tag + 2] : ' ';
      if (sign == '-') {
        text = Strip(text, "", Side::kRight);
      } else if (sign != '+' && in_[tag + 1] != '{') {
        text = WithoutIndent(text);
      }
    }
    if (!text.empty()) Add(Kind::kText, std::string(text));
    Advance(tag - at_);
    return absl::OkStatus();
  }

  // Without the spaces before a tag that is the first thing on its line.
  absl::string_view WithoutIndent(absl::string_view text) const {
    const size_t newline = text.rfind('\n');
    const size_t line_start = newline == absl::string_view::npos ? 0 : newline + 1;
    if (line_start == 0 && !at_line_start_) return text;
    const absl::string_view indent = text.substr(line_start);
    return Strip(indent, "", Side::kBoth).empty() ? text.substr(0, line_start) : text;
  }

  // After the end of a tag: `sign` stands before it.
  void TrimAfter(char sign, bool takes_line_end) {
    const size_t begin = at_;
    if (sign == '-') {
      SkipSpaces();
    } else if (takes_line_end && sign != '+' && At("\n")) {
      Advance(1);
    }
    at_line_start_ = at_ > begin && in_[at_ - 1] == '\n';
  }

  absl::Status Comment() {
    const size_t end = in_.find("#}", at_ + 2);
    if (end == absl::string_view::npos) return Error("a comment is not closed");
    const char sign = end > at_ + 2 ? in_[end - 1] : ' ';
    Advance(end + 2 - at_);
    TrimAfter(sign, /*takes_line_end=*/true);
    return absl::OkStatus();
  }

  absl::Status Tag() {
    const bool is_block = in_[at_ + 1] == '%';
    Add(is_block ? Kind::kBlockBegin : Kind::kOutputBegin, "");
    Advance(2);
    if (At("-") || At("+")) Advance(1);
    const absl::string_view close = is_block ? "%}" : "}}";
    brackets_.clear();
    for (;;) {
      SkipSpaces();
      if (at_ == in_.size()) return Error("a tag is not closed");
      if (brackets_.empty()) {
        const char sign = in_[at_];
        const bool signed_close = (sign == '-' || (sign == '+' && is_block)) &&
                                  absl::StartsWith(in_.substr(at_ + 1), close);
        if (signed_close || At(close)) {
          Add(is_block ? Kind::kBlockEnd : Kind::kOutputEnd, "");
          Advance(signed_close ? 3 : 2);
          const bool is_raw = IsRaw();
          TrimAfter(signed_close ? sign : ' ', is_block && !is_raw);
          return is_raw ? Raw() : absl::OkStatus();
        }
      }
      GF_RETURN_IF_ERROR(ExpressionToken());
    }
  }

  bool IsRaw() const {
    const size_t n = tokens_.size();
    return n >= 3 && tokens_[n - 1].kind == Kind::kBlockEnd && tokens_[n - 2].text == "raw" &&
           tokens_[n - 3].kind == Kind::kBlockBegin;
  }

  // Text up to {% endraw %}, as it stands.
  absl::Status Raw() {
    tokens_.resize(tokens_.size() - 3);
    for (size_t tag = FindTag(in_, at_); tag < in_.size(); tag = FindTag(in_, tag + 1)) {
      absl::string_view rest = in_.substr(tag);
      if (!absl::ConsumePrefix(&rest, "{%")) continue;
      const char open_sign = rest.empty() ? ' ' : rest[0];
      if (open_sign == '-' || open_sign == '+') rest.remove_prefix(1);
      rest = Strip(rest, "", Side::kLeft);
      if (!absl::ConsumePrefix(&rest, "endraw")) continue;
      rest = Strip(rest, "", Side::kLeft);
      const char close_sign = rest.empty() ? ' ' : rest[0];
      if (close_sign == '-' || close_sign == '+') rest.remove_prefix(1);
      if (!absl::ConsumePrefix(&rest, "%}")) continue;
      absl::string_view text = in_.substr(at_, tag - at_);
      if (open_sign == '-') {
        text = Strip(text, "", Side::kRight);
      } else if (open_sign != '+') {
        text = WithoutIndent(text);
      }
      if (!text.empty()) Add(Kind::kText, std::string(text));
      Advance(in_.size() - rest.size() - at_);
      TrimAfter(close_sign, /*takes_line_end=*/true);
      return absl::OkStatus();
    }
    return Error("raw is not closed");
  }

  absl::Status ExpressionToken() {
    const char c = in_[at_];
    if (absl::ascii_isalpha(c) || c == '_') {
      size_t end = at_;
      while (end < in_.size() && (absl::ascii_isalnum(in_[end]) || in_[end] == '_')) ++end;
      return Take(Kind::kName, end - at_);
    }
    if (absl::ascii_isdigit(c)) return NumberToken();
    if (c == '"' || c == '\'') return StringToken(c);
    for (const absl::string_view op : {"//", "**", "==", "!=", ">=", "<="}) {
      if (At(op)) return Take(Kind::kOperator, 2);
    }
    if (absl::string_view("+-*/%~|()[]{},:.=<>").find(c) == absl::string_view::npos) {
      size_t end = at_;
      NextCodePoint(in_, &end);
      return Error(absl::StrCat("unexpected character '", in_.substr(at_, end - at_), "'"));
    }
    GF_RETURN_IF_ERROR(TrackBrackets(c));
    return Take(Kind::kOperator, 1);
  }

  absl::Status Take(Kind kind, size_t n) {
    Add(kind, std::string(in_.substr(at_, n)));
    Advance(n);
    return absl::OkStatus();
  }

  absl::Status TrackBrackets(char c) {
    if (c == '(' || c == '[' || c == '{') brackets_.push_back(c);
    if (c != ')' && c != ']' && c != '}') return absl::OkStatus();
    const char open = c == ')' ? '(' : c == ']' ? '[' : '{';
    if (brackets_.empty() || brackets_.back() != open) {
      return Error(absl::StrCat("unexpected '", absl::string_view(&c, 1), "'"));
    }
    brackets_.pop_back();
    return absl::OkStatus();
  }

  absl::Status NumberToken() {
    size_t end = at_;
    const auto skip_digits = [&] {
      while (end < in_.size() && (absl::ascii_isdigit(in_[end]) || in_[end] == '_')) ++end;
    };
    skip_digits();
    bool is_float = false;
    if (end + 1 < in_.size() && in_[end] == '.' && absl::ascii_isdigit(in_[end + 1])) {
      is_float = true;
      ++end;
      skip_digits();
    }
    if (end < in_.size() && (in_[end] == 'e' || in_[end] == 'E')) {
      size_t digits = end + 1;
      if (digits < in_.size() && (in_[digits] == '+' || in_[digits] == '-')) ++digits;
      if (digits < in_.size() && absl::ascii_isdigit(in_[digits])) {
        is_float = true;
        end = digits;
        skip_digits();
      }
    }
    std::string text = absl::StrReplaceAll(in_.substr(at_, end - at_), {{"_", ""}});
    Add(is_float ? Kind::kFloat : Kind::kInteger, std::move(text));
    Advance(end - at_);
    return absl::OkStatus();
  }

  absl::Status StringToken(char quote) {
    size_t end = at_ + 1;
    while (end < in_.size() && in_[end] != quote) end += in_[end] == '\\' ? 2 : 1;
    if (end >= in_.size()) return Error("a string is not closed");
    std::string text;
    if (!Unescape(in_.substr(at_ + 1, end - at_ - 1), &text)) {
      return Error("a string has a malformed escape");
    }
    Add(Kind::kString, std::move(text));
    Advance(end + 1 - at_);
    return absl::OkStatus();
  }

  // Python's escapes; an unknown one stays as it is.
  static bool Unescape(absl::string_view in, std::string* out) {
    for (size_t i = 0; i < in.size(); ++i) {
      if (in[i] != '\\' || i + 1 == in.size()) {
        out->push_back(in[i]);
        continue;
      }
      const char c = in[++i];
      static constexpr absl::string_view kLetters = "abfnrtv\\'\"",
                                         kMeanings = "\a\b\f\n\r\t\v\\'\"";
      const size_t letter = kLetters.find(c);
      if (letter != absl::string_view::npos) {
        out->push_back(kMeanings[letter]);
      } else if (c == '\n') {
        continue;
      } else if (c >= '0' && c <= '7') {
        size_t n = 1;
        while (n < 3 && i + n < in.size() && in[i + n] >= '0' && in[i + n] <= '7') ++n;
        AppendUtf8(static_cast<char32_t>(std::stoul(std::string(in.substr(i, n)), nullptr, 8)),
                   out);
        i += n - 1;
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (!HexEscape(in.substr(i + 1, n), n, out)) return false;
        i += n;
      } else {
        out->push_back('\\');
        out->push_back(c);
      }
    }
    return true;
  }

  static bool HexEscape(absl::string_view digits, size_t n, std::string* out) {
    if (digits.size() != n) return false;
    char32_t code = 0;
    for (const char c : digits) {
      if (!absl::ascii_isxdigit(c)) return false;
      code = code * 16 + (absl::ascii_isdigit(c) ? c - '0' : absl::ascii_tolower(c) - 'a' + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return false;
    AppendUtf8(code, out);
    return true;
  }

  const std::string source_;
  const absl::string_view in_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::string brackets_;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (absl::EndsWith(text, "\n")) text.pop_back();
  return Lexer(std::move(text)).Run();
}

}  // namespace gatefold::jinja

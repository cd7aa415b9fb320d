// From Oniguruma's regular expressions to PCRE2's. Most of the syntax is shared; here is what is
// read differently.

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/checkpoint/strict_json.h"
#include "gatefold/tokenizer/regex.h"
#include "gatefold/tokenizer/unicode_additions.h"

namespace gatefold {
namespace {

// Members of \w; PCRE2's own knows no marks.
std::string WordMembers() {
  std::string word = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}";
  for (const char* category : {"L", "M", "Nd", "Nl", "Pc"}) word += AdditionsTo(category);
  return word + "\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
}

// What a one-letter escape becomes within the brackets of a class. PCRE2's own \s takes U+180E for
// a space.
std::string MembersOf(char letter, bool in_class) {
  if (letter == 's') return "\\p{White_Space}";
  if (letter == 'h') return "0-9a-fA-F";
  if (letter == 'd') return "\\p{Nd}" + AdditionsTo("Nd");
  // Oniguruma counts Latin-1's superscripts and fractions as \w outside of classes only.
  return in_class ? WordMembers() : WordMembers() + "\\xB2\\xB3\\xB9\\xBC-\\xBE";
}

// Members of [:name:], which to PCRE2 has fewer: its [:punct:] no symbols beyond ASCII, its
// [:alpha:] no vowel signs. Nothing for a name that is not read here.
std::optional<std::string> PosixMembers(absl::string_view name) {
  if (name == "alpha") return "\\p{Alphabetic}" + AdditionsTo("L");
  if (name == "alnum") {
    return absl::StrCat("\\p{Alphabetic}\\p{Nd}", AdditionsTo("L"), AdditionsTo("Nd"));
  }
  if (name == "blank") return "\\p{Zs}\\t";
  if (name == "digit") return MembersOf('d', true);
  if (name == "lower") return "\\p{Lowercase}" + AdditionsTo("Ll");
  if (name == "punct") return absl::StrCat("\\p{P}\\p{S}", AdditionsTo("P"), AdditionsTo("S"));
  if (name == "space") return MembersOf('s', true);
  if (name == "upper") return "\\p{Uppercase}" + AdditionsTo("Lu");
  if (name == "word") return MembersOf('w', true);
  if (name == "ascii" || name == "cntrl" || name == "xdigit") return absl::StrCat("[:", name, ":]");
  return std::nullopt;
}

// The engine knows the names of scripts, in all their spellings.
bool IsScript(absl::string_view name) {
  const std::string pattern = absl::StrCat("\\p{sc:", name, "}");
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

class Translator {
 public:
  explicit Translator(absl::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < in_.size()) {
      const char c = in_[at_];
      if (c == '\\') {
        GF_RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        GF_RETURN_IF_ERROR(InClass(c));
      } else {
        GF_RETURN_IF_ERROR(OutsideOfClass(c));
      }
    }
    return std::move(out_);
  }

 private:
  void Copy(size_t n) {
    out_.append(in_.data() + at_, n);
    at_ += n;
  }
  bool NextIs(absl::string_view what) const { return in_.substr(at_, what.size()) == what; }

  absl::Status InClass(char c) {
    if (NextIs("[:")) {
      const size_t end = in_.find(":]", at_);
      if (end != absl::string_view::npos) return PosixClass(end);
    }
    if (c == '[') return FeatureUnsupported("a character class within a class");
    if (NextIs("&&")) return FeatureUnsupported("&& in a character class");
    if (c == ']' && at_ > class_start_) in_class_ = false;
    Copy(1);
    return absl::OkStatus();
  }

  // [:alpha:], of which ":]" is at `end`.
  absl::Status PosixClass(size_t end) {
    const absl::string_view name = in_.substr(at_ + 2, end - at_ - 2);
    const std::optional<std::string> members = PosixMembers(name);
    if (!members.has_value()) {
      return FeatureUnsupported(absl::StrCat("[:", PrintableName(name), ":] in a pattern"));
    }
    out_ += *members;
    at_ = end + 2;
    return absl::OkStatus();
  }

  absl::Status OutsideOfClass(char c) {
    // Oniguruma repeats an interval where PCRE2 makes it possessive.
    if (NextIs("}+")) return FeatureUnsupported("+ after an interval");
    if (NextIs("(?m")) return FeatureUnsupported("the option (?m)");
    if (NextIs("(?#") || NextIs("(*")) return FeatureUnsupported("a comment or verb");
    if (c == '[') {
      in_class_ = true;
      Copy(NextIs("[^") ? 2 : 1);
      class_start_ = at_;
      return absl::OkStatus();
    }
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (at_ + 1 >= in_.size()) return absl::InvalidArgumentError("pattern ends in a backslash");
    const char letter = in_[at_ + 1];
    switch (letter) {
      case 's':
      case 'w':
      case 'h':
      case 'd':
        return Class(MembersOf(letter, in_class_), /*negated=*/false);
      case 'S':
        return in_class_ ? Replace("\\P{White_Space}") : Class(MembersOf('s', false), true);
      case 'W':
      case 'H':
      case 'D':
        if (in_class_) return Refuse(letter);
        return Class(MembersOf(absl::ascii_tolower(letter), false), /*negated=*/true);
      case 'b':
      case 'B':
        return in_class_ ? Replace("\\x08") : WordBorder(letter == 'B');
      case 'v':
        return Replace("\\x0B");
      case 'u':
        return UnicodeEscape();
      case 'p':
      case 'P':
        return Property();
      // Names that mean something else to the other engine, or nothing.
      case 'R':
      case 'X':
      case 'K':
      case 'C':
      case 'N':
      case 'O':
      case 'V':
      case 'Q':
      case 'E':
      case 'g':
      case 'k':
      case 'M':
      case 'c':
      case 'y':
      case 'Y':
        return Refuse(letter);
      case 'x': {
        const size_t end = in_.substr(at_ + 2, 1) == "{" ? in_.find('}', at_) : at_ + 1;
        if (end == absl::string_view::npos) {
          return absl::InvalidArgumentError("\\x in a pattern lacks its }");
        }
        Copy(end + 1 - at_);
        return absl::OkStatus();
      }
      default:
        Copy(2);
        return absl::OkStatus();
    }
  }

  absl::Status Class(const std::string& inside, bool negated) {
    return Replace(in_class_ ? inside : absl::StrCat(negated ? "[^" : "[", inside, "]"));
  }
  absl::Status Replace(absl::string_view by) {
    out_.append(by.data(), by.size());
    at_ += 2;
    return absl::OkStatus();
  }
  absl::Status WordBorder(bool negated) {
    const std::string word = absl::StrCat("[", MembersOf('w', false), "]");
    return Replace(absl::StrCat("(?:(?<=", word, negated ? ")(?=" : ")(?!", word, ")|(?<!", word,
                                negated ? ")(?!" : ")(?=", word, "))"));
  }
  absl::Status Refuse(char letter) const {
    return FeatureUnsupported(absl::StrCat("\\", absl::string_view(&letter, 1),
                                           in_class_ ? " in a character class" : "",
                                           " in a pattern"));
  }

  // \p{L}, \P{L}, \p{^L}
  absl::Status Property() {
    const size_t end = in_.find('}', at_);
    if (in_.substr(at_ + 2, 1) != "{" || end == absl::string_view::npos) {
      return absl::InvalidArgumentError("\\p in a pattern needs a name in braces");
    }
    absl::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    bool negated = in_[at_ + 1] == 'P';
    if (absl::ConsumePrefix(&name, "^")) negated = !negated;
    const std::string additions = AdditionsTo(name);
    // To PCRE2 the bare name of a script means the characters used with it, too: 、 with Han.
    const std::string property = absl::StrCat("{", IsScript(name) ? "sc:" : "", name, "}");
    at_ = end - 1;  // Replace() steps over two
    // Within a class a negated property cannot lose members; it keeps the new ones of its name.
    if (in_class_ && negated) return Replace("\\P" + property);
    return Class(absl::StrCat("\\p", property, additions), negated);
  }

  absl::Status UnicodeEscape() {
    const absl::string_view digits = in_.substr(at_ + 2, 4);
    bool good = digits.size() == 4;
    for (const char c : digits) good = good && absl::ascii_isxdigit(c);
    if (!good) return absl::InvalidArgumentError("\\u in a pattern needs 4 hexadecimal digits");
    absl::StrAppend(&out_, "\\x{", digits, "}");
    at_ += 6;
    return absl::OkStatus();
  }

  const absl::string_view in_;
  size_t at_ = 0;
  bool in_class_ = false;
  size_t class_start_ = 0;  // where a ] still stands for itself
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(absl::string_view pattern) {
  return Translator(pattern).Run();
}

}  // namespace gatefold

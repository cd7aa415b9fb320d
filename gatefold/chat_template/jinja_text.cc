#include "gatefold/chat_template/jinja_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/char_class.h"

namespace gatefold::jinja {
namespace {

// White space of str.strip(): the property, and four control characters.
bool IsPythonSpace(char32_t c) { return IsSpace(c) || (c >= 0x1C && c <= 0x1F); }

void AppendUpper(char32_t c, std::string* out) {
  if (c == 0xDF) {
    *out += "SS";
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
  }
}

void AppendLower(char32_t c, std::string* out) {
  if (c == 0x130) {
    *out += "i\u0307";
  } else {
    AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
  }
}

// Upper case where `starts(previous)`, lower case elsewhere. Python's title case of ß is Ss, its
// upper case SS.
template <typename Starts>
std::string Title(absl::string_view text, bool sharp_s_titled, const Starts& starts) {
  std::string out;
  char32_t previous = 0;
  for (size_t i = 0; i < text.size();) {
    const bool is_first = i == 0;
    const char32_t c = NextCodePoint(text, &i);
    if (sharp_s_titled && c == 0xDF && (is_first || starts(previous))) {
      out += "Ss";
    } else if (is_first || starts(previous)) {
      AppendUpper(c, &out);
    } else {
      AppendLower(c, &out);
    }
    previous = c;
  }
  return out;
}

template <typename Predicate>
bool AllOf(absl::string_view text, const Predicate& predicate) {
  for (size_t i = 0; i < text.size();) {
    if (!predicate(NextCodePoint(text, &i))) return false;
  }
  return !text.empty();
}

bool ContainsCodePoint(absl::string_view chars, char32_t wanted) {
  for (size_t i = 0; i < chars.size();) {
    if (NextCodePoint(chars, &i) == wanted) return true;
  }
  return false;
}

// Of the word that `text` starts with, or ends in.
size_t FirstWordBytes(absl::string_view text, bool from_right) {
  size_t n_bytes = 0;
  while (n_bytes < text.size()) {
    size_t next = from_right ? PreviousBoundary(text, text.size() - n_bytes) : n_bytes;
    const size_t begin = next;
    if (IsPythonSpace(NextCodePoint(text, &next))) break;
    n_bytes = from_right ? text.size() - begin : next;
  }
  return n_bytes;
}

std::vector<std::string> SplitAtSpaces(absl::string_view text, int64_t max_splits,
                                       bool from_right) {
  const Side near = from_right ? Side::kRight : Side::kLeft;
  std::vector<std::string> parts;
  text = Strip(text, "", near);
  while (!text.empty()) {
    if (max_splits >= 0 && parts.size() == static_cast<size_t>(max_splits)) {
      parts.emplace_back(text);
      break;
    }
    const size_t n_word = FirstWordBytes(text, from_right);
    const size_t n_rest = text.size() - n_word;
    parts.emplace_back(text.substr(from_right ? n_rest : 0, n_word));
    text = Strip(text.substr(from_right ? 0 : n_word, n_rest), "", near);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::string ToUpper(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) AppendUpper(NextCodePoint(text, &i), &out);
  return out;
}

std::string ToLower(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) AppendLower(NextCodePoint(text, &i), &out);
  return out;
}

std::string Capitalize(absl::string_view text) {
  return Title(text, true, [](char32_t) { return false; });
}

std::string TitleRuns(absl::string_view text) {
  return Title(text, true,
               [](char32_t previous) { return (CharClassOf(previous) & kLetter) == 0; });
}

std::string TitleWords(absl::string_view text) {
  return Title(text, false, [](char32_t previous) {
    return IsPythonSpace(previous) || previous == '-' || previous == '(' || previous == '{' ||
           previous == '[' || previous == '<';
  });
}

absl::string_view Strip(absl::string_view text, absl::string_view chars, Side side) {
  const auto strips = [chars](char32_t c) {
    return chars.empty() ? IsPythonSpace(c) : ContainsCodePoint(chars, c);
  };
  while (side != Side::kRight && !text.empty()) {
    size_t next = 0;
    if (!strips(NextCodePoint(text, &next))) break;
    text.remove_prefix(next);
  }
  while (side != Side::kLeft && !text.empty()) {
    const size_t begin = PreviousBoundary(text, text.size());
    size_t next = begin;
    if (!strips(NextCodePoint(text, &next))) break;
    text = text.substr(0, begin);
  }
  return text;
}

std::vector<std::string> Split(absl::string_view text, absl::string_view separator,
                               int64_t max_splits, bool from_right) {
  if (separator.empty()) return SplitAtSpaces(text, max_splits, from_right);
  std::vector<std::string> parts;
  const auto may_split = [&] {
    return max_splits < 0 || parts.size() < static_cast<size_t>(max_splits);
  };
  if (from_right) {
    size_t at;
    while (may_split() && (at = text.rfind(separator)) != absl::string_view::npos) {
      parts.emplace_back(text.substr(at + separator.size()));
      text = text.substr(0, at);
    }
    parts.emplace_back(text);
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  size_t at;
  while (may_split() && (at = text.find(separator)) != absl::string_view::npos) {
    parts.emplace_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  parts.emplace_back(text);
  return parts;
}

std::vector<std::string> SplitLines(absl::string_view text, bool keep_ends) {
  std::vector<std::string> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t end = i;
    const char32_t c = NextCodePoint(text, &i);
    const bool is_end = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                        c == 0x2028 || c == 0x2029;
    if (!is_end) continue;
    if (c == '\r' && i < text.size() && text[i] == '\n') ++i;
    lines.emplace_back(text.substr(begin, (keep_ends ? i : end) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.emplace_back(text.substr(begin));
  return lines;
}

std::string Replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    int64_t max_count) {
  std::string out;
  int64_t n_done = 0;
  const auto may = [&] { return max_count < 0 || n_done < max_count; };
  if (from.empty()) {
    for (size_t i = 0; may(); ++n_done) {
      absl::StrAppend(&out, to);
      if (text.empty()) return out;
      NextCodePoint(text, &i);
      absl::StrAppend(&out, text.substr(0, i));
      text.remove_prefix(std::exchange(i, 0));
    }
    return absl::StrCat(out, text);
  }
  size_t at;
  while (may() && (at = text.find(from)) != absl::string_view::npos) {
    absl::StrAppend(&out, text.substr(0, at), to);
    text.remove_prefix(at + from.size());
    ++n_done;
  }
  absl::StrAppend(&out, text);
  return out;
}

size_t CountOf(absl::string_view text, absl::string_view part) {
  if (part.empty()) return 0;
  size_t n = 0;
  for (size_t i = text.find(part); i != absl::string_view::npos;
       i = text.find(part, i + part.size())) {
    ++n;
  }
  return n;
}

bool IsDigits(absl::string_view text) {
  return AllOf(text, [](char32_t c) {
    return utf8proc_category(static_cast<utf8proc_int32_t>(c)) == UTF8PROC_CATEGORY_ND;
  });
}
bool IsAlphabetic(absl::string_view text) {
  return AllOf(text, [](char32_t c) { return (CharClassOf(c) & kLetter) != 0; });
}
bool IsAlphanumeric(absl::string_view text) {
  return AllOf(text, [](char32_t c) { return (CharClassOf(c) & (kLetter | kNumber)) != 0; });
}
bool IsSpaces(absl::string_view text) { return AllOf(text, IsPythonSpace); }
bool IsLower(absl::string_view text) { return ToLower(text) == text && ToUpper(text) != text; }
bool IsUpper(absl::string_view text) { return ToUpper(text) == text && ToLower(text) != text; }

}  // namespace gatefold::jinja

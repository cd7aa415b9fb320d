#include "gatefold/tokenizer/known_patterns.h"

#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/char_class.h"

namespace gatefold {
namespace {

// A place in the text with the code point there looked up once.
struct Cursor {
  absl::string_view text;
  const BmpClasses& classes;
  size_t at = 0;    // start of the code point
  size_t next = 0;  // its end; equal to `at` at the end of the text
  char32_t c = 0;   // 0 at the end
  uint8_t char_class = 0;

  void Seek(size_t position) {
    at = next = position;
    c = 0;
    char_class = 0;
    if (position == text.size()) return;
    c = NextCodePoint(text, &next);
    char_class = CharClassOf(c, classes);
  }
  bool done() const { return at == next; }
  bool Is(uint8_t any_of) const { return (char_class & any_of) != 0; }
  bool IsOther() const { return !done() && !Is(kSpace | kLetter | kNumber); }
  bool IsNewline() const { return c == '\n' || (c == '\r'); }
  void SkipAll(uint8_t any_of) {
    while (Is(any_of)) Seek(next);
  }
};

char32_t FoldCase(char32_t c) {
  if (c >= 'A' && c <= 'Z') return c + 32;
  return c == 0x17F ? U's' : c;  // long s folds to s
}

// Length of 's, 't, 're, 've, 'm, 'll or 'd at `at`; 0 if there is none.
size_t ContractionLength(absl::string_view text, size_t at, bool any_case) {
  if (text[at] != '\'' || at + 1 == text.size()) return 0;
  size_t end = at + 1;
  char32_t first = NextCodePoint(text, &end);
  if (any_case) first = FoldCase(first);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return end - at;
  if (end == text.size()) return 0;
  char32_t second = NextCodePoint(text, &end);
  if (any_case) second = FoldCase(second);
  if ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
      (first == 'l' && second == 'l')) {
    return end - at;
  }
  return 0;
}

// \s+(?!\S)|\s+ on the run [begin, end) of spaces: the last space goes to the word that follows.
size_t SpaceRunEnd(absl::string_view text, size_t begin, size_t end) {
  if (end == text.size()) return end;
  const size_t last = PreviousBoundary(text, end);
  return last > begin ? last : end;
}

void MatchGpt2(absl::string_view text, std::vector<Span>* matches) {
  Cursor cursor{text, GetBmpClasses()};
  for (size_t begin = 0; begin < text.size(); begin = matches->back().end) {
    cursor.Seek(begin);
    if (const size_t length = ContractionLength(text, begin, /*any_case=*/false)) {
      matches->push_back({begin, begin + length});
      continue;
    }
    if (cursor.c == ' ') {
      cursor.Seek(cursor.next);
      if (cursor.done() || cursor.Is(kSpace)) cursor.Seek(begin);
    }
    if (cursor.Is(kLetter)) {
      cursor.SkipAll(kLetter);
    } else if (cursor.Is(kNumber)) {
      cursor.SkipAll(kNumber);
    } else if (cursor.IsOther()) {
      while (cursor.IsOther()) cursor.Seek(cursor.next);
    } else {
      cursor.SkipAll(kSpace);
      cursor.at = SpaceRunEnd(text, begin, cursor.at);
    }
    matches->push_back({begin, cursor.at});
  }
}

// \s*[\r\n]+|\s+(?!\S)|\s+ at a space.
size_t MatchSpaces(Cursor* cursor) {
  const size_t begin = cursor->at;
  size_t after_newline = begin;
  while (cursor->Is(kSpace)) {
    if (cursor->IsNewline()) after_newline = cursor->next;
    cursor->Seek(cursor->next);
  }
  if (after_newline > begin) return after_newline;
  return SpaceRunEnd(cursor->text, begin, cursor->at);
}

template <int kMaxDigits>
size_t NextLlama3(Cursor* cursor) {
  const size_t begin = cursor->at;
  if (const size_t length = ContractionLength(cursor->text, begin, /*any_case=*/true)) {
    return begin + length;
  }
  if (cursor->Is(kNumber)) {
    for (int i = 0; i < kMaxDigits && cursor->Is(kNumber); ++i) cursor->Seek(cursor->next);
    return cursor->at;
  }
  // One character of any other kind but a line end may lead a word.
  const bool is_space = cursor->c == ' ';
  const bool may_lead = !cursor->Is(kLetter) && !cursor->IsNewline();
  if (may_lead) cursor->Seek(cursor->next);
  if (cursor->Is(kLetter)) {
    cursor->SkipAll(kLetter);
    return cursor->at;
  }
  if (!is_space) cursor->Seek(begin);
  if (cursor->IsOther()) {
    while (cursor->IsOther()) cursor->Seek(cursor->next);
    while (cursor->IsNewline()) cursor->Seek(cursor->next);
    return cursor->at;
  }
  cursor->Seek(begin);
  return MatchSpaces(cursor);
}

template <int kMaxDigits>
void MatchLlama3(absl::string_view text, std::vector<Span>* matches) {
  Cursor cursor{text, GetBmpClasses()};
  for (size_t begin = 0; begin < text.size(); begin = matches->back().end) {
    cursor.Seek(begin);
    matches->push_back({begin, NextLlama3<kMaxDigits>(&cursor)});
  }
}

void MatchLineEnds(absl::string_view text, std::vector<Span>* matches) {
  for (size_t i = text.find_first_of("\r\n"); i != absl::string_view::npos;
       i = text.find_first_of("\r\n", i + 1)) {
    matches->push_back({i, i + 1});
  }
}

// \s+$ where $ also stands before a line feed. An engine that tries every start of a long run of
// spaces in turn takes quadratic time.
void MatchSpacesAtLineEnd(absl::string_view text, std::vector<Span>* matches) {
  Cursor cursor{text, GetBmpClasses()};
  cursor.Seek(0);
  while (!cursor.done()) {
    if (!cursor.Is(kSpace)) {
      cursor.Seek(cursor.next);
      continue;
    }
    const size_t begin = cursor.at;
    size_t end = begin;
    for (; cursor.Is(kSpace); cursor.Seek(cursor.next)) {
      if (cursor.c == '\n' && cursor.at > begin) end = cursor.at;
    }
    if (cursor.done()) end = cursor.at;
    if (end > begin) matches->push_back({begin, end});
  }
}

}  // namespace

KnownPattern FindKnownPattern(absl::string_view pattern) {
  if (pattern == kGpt2Pattern) return MatchGpt2;
  if (pattern == kLlama3Pattern) return MatchLlama3<3>;
  if (pattern == kQwen2Pattern) return MatchLlama3<1>;
  if (pattern == "[\\r\\n]") return MatchLineEnds;
  if (pattern == "\\s+$") return MatchSpacesAtLineEnd;
  return nullptr;
}

}  // namespace gatefold

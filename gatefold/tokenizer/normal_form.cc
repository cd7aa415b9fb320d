#include "gatefold/tokenizer/normal_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "gatefold/base/check.h"
#include "gatefold/base/utf8.h"

namespace gatefold {
namespace {

struct Range {
  char32_t first, last;
};

// Code points that decompose, compose or are reordered since a later version than 9.0.
constexpr Range kLater[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785}, {0x10787, 0x107B0},
    {0x107B2, 0x107BA}, {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938},
    {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
    {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E030, 0x1E06D},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
};

bool IsLater(char32_t c) {
  if (c < kLater[0].first) return false;
  const auto* it =
      std::lower_bound(std::begin(kLater), std::end(kLater), c,
                       [](Range range, char32_t wanted) { return range.last < wanted; });
  return it != std::end(kLater) && it->first <= c;
}

using CodePoints = std::vector<utf8proc_int32_t>;

bool Composes(NormalForm form) { return form == NormalForm::kNfc || form == NormalForm::kNfkc; }

void AppendDecomposed(char32_t c, NormalForm form, CodePoints* out) {
  if (c < 0xA0) {
    out->push_back(static_cast<utf8proc_int32_t>(c));
    return;
  }
  const bool compat = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compat ? UTF8PROC_COMPAT : 0));
  utf8proc_int32_t parts[32];  // the longest decomposition has 18
  int bound_class = 0;
  const utf8proc_ssize_t n_parts = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts,
                                                           std::size(parts), options, &bound_class);
  GF_CHECK(n_parts >= 0 && n_parts <= static_cast<utf8proc_ssize_t>(std::size(parts)));
  out->insert(out->end(), parts, parts + n_parts);
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// utf8proc's own ordering takes quadratic time on a long run of marks, which anyone can send.
void OrderMarks(CodePoints* points) {
  const auto is_base = [](utf8proc_int32_t c) { return c < 0x300 || CombiningClass(c) == 0; };
  auto begin = points->begin();
  while (begin != points->end()) {
    begin = std::find_if_not(begin, points->end(), is_base);
    const auto end = std::find_if(begin, points->end(), is_base);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

void AppendNormalized(NormalForm form, absl::string_view text, std::string* out) {
  CodePoints points;
  points.reserve(text.size());
  for (size_t i = 0; i < text.size();) AppendDecomposed(NextCodePoint(text, &i), form, &points);
  OrderMarks(&points);
  size_t size = points.size();
  if (Composes(form)) {
    const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    size = utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(size), options);
  }
  for (size_t i = 0; i < size; ++i) AppendUtf8(static_cast<char32_t>(points[i]), out);
}

// Nothing below U+0300 changes under NFC, nor composes with what is below it.
bool IsPlainlyNfc(absl::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<uint8_t>(c) >= 0xCC; });
}

bool IsAscii(absl::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<uint8_t>(c) >= 0x80; });
}

}  // namespace

void Normalize(NormalForm form, std::string* text) {
  if (form == NormalForm::kNfc ? IsPlainlyNfc(*text) : IsAscii(*text)) return;
  std::string normalized;
  normalized.reserve(text->size());
  size_t done = 0;
  for (size_t i = 0; i < text->size();) {
    const size_t begin = i;
    if (!IsLater(NextCodePoint(*text, &i))) continue;
    // For the reference it is a base character that takes part in nothing.
    AppendNormalized(form, absl::string_view(*text).substr(done, begin - done), &normalized);
    normalized.append(*text, begin, i - begin);
    done = i;
  }
  AppendNormalized(form, absl::string_view(*text).substr(done), &normalized);
  *text = std::move(normalized);
}

}  // namespace gatefold

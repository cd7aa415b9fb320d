#pragma once

// Python's string operations, by code points.

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace gatefold::jinja {

std::string ToUpper(absl::string_view text);
std::string ToLower(absl::string_view text);
std::string Capitalize(absl::string_view text);
// str.title(): every run of letters; the filter `title` also begins words after ' and the like.
std::string TitleRuns(absl::string_view text);
std::string TitleWords(absl::string_view text);

enum class Side { kLeft, kRight, kBoth };
// `chars` empty: white space.
absl::string_view Strip(absl::string_view text, absl::string_view chars, Side side);
// `separator` empty: at runs of white space. `max_splits` negative: all. From the right for rsplit.
std::vector<std::string> Split(absl::string_view text, absl::string_view separator,
                               int64_t max_splits, bool from_right);
std::vector<std::string> SplitLines(absl::string_view text, bool keep_ends);
// `max_count` negative: all. An empty `from` stands before every character and at the end.
std::string Replace(absl::string_view text, absl::string_view from, absl::string_view to,
                    int64_t max_count);
size_t CountOf(absl::string_view text, absl::string_view part);
// False for the empty string. `Is...` as Python's methods of the name.
bool IsDigits(absl::string_view text);
bool IsAlphabetic(absl::string_view text);
bool IsAlphanumeric(absl::string_view text);
bool IsSpaces(absl::string_view text);
bool IsLower(absl::string_view text);
bool IsUpper(absl::string_view text);

}  // namespace gatefold::jinja

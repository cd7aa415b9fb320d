#include "gatefold/base/traceparent.h"

#include <algorithm>
#include <cstddef>

namespace gatefold {
namespace {

constexpr size_t kBytes = 55;      // of version 00; later ones may have more behind a dash
constexpr size_t kMaxBytes = 256;  // nobody's

bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); }

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return IsHex(c); });
}

bool IsId(absl::string_view text) {
  return IsHex(text) && text.find_first_not_of('0') != absl::string_view::npos;
}

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

}  // namespace

absl::string_view ValidTraceparent(absl::string_view text) {
  if (text.size() < kBytes || text.size() > kMaxBytes) return "";
  const absl::string_view version = text.substr(0, 2);
  const bool later = version != "00";
  if (!IsHex(version) || version == "ff") return "";
  if (text.size() > kBytes && (!later || text[kBytes] != '-')) return "";
  const bool valid = text[2] == '-' && IsId(text.substr(3, 32)) && text[35] == '-' &&
                     IsId(text.substr(36, 16)) && text[52] == '-' && IsHex(text.substr(53, 2)) &&
                     IsPrintable(text.substr(kBytes));
  return valid ? text : "";
}

}  // namespace gatefold

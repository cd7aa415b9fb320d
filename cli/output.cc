#include "cli/output.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "cli/error_report.h"
#include "gatefold/base/check.h"
#include "gatefold/base/utf8.h"

namespace gatefold::cli {
namespace {

// Characters, not bytes; good enough for names and tokens.
size_t Width(absl::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; });
}

}  // namespace

void OutputFlag::AddTo(FlagSet* flags) {
  flags->Add("output", "table|json", "for people or for programs (default table)", &format, 'o');
}

absl::Status OutputFlag::Check() const {
  if (format == "table" || format == "json") return absl::OkStatus();
  return UsageError(absl::StrCat("--output is \"", format, "\", must be table or json"));
}

void PrintJson(const Json& json, std::ostream& out) {
  out << json.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace) << "\n";
}

Table::Table(std::vector<std::string> headers) {
  for (std::string& header : headers) {
    absl::string_view name = header;
    right_.push_back(absl::ConsumePrefix(&name, ">"));
    header = std::string(name);
  }
  rows_.push_back(std::move(headers));
}

void Table::AddRow(std::vector<std::string> cells) {
  GF_CHECK(cells.size() == right_.size());
  rows_.push_back(std::move(cells));
}

void Table::Print(std::ostream& out) const {
  std::vector<size_t> widths(right_.size(), 0);
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - Width(row[i]), ' ');
      absl::StrAppend(&line, i > 0 ? "  " : "", right_[i] ? padding : "", row[i],
                      right_[i] ? "" : padding);
    }
    out << absl::StripTrailingAsciiWhitespace(line) << "\n";
  }
}

std::string FormatBytes(double bytes) {
  const char* const units[] = {"kB", "MB", "GB", "TB"};
  if (bytes < 1000) return absl::StrFormat("%.0f B", bytes);
  int unit = 0;
  for (bytes /= 1000; bytes >= 1000 && unit < 3; ++unit) bytes /= 1000;
  return absl::StrFormat("%.1f %s", bytes, units[unit]);
}

std::string Quoted(absl::string_view bytes) {
  const std::string escaped =
      FindInvalidUtf8(bytes) == kValidUtf8 ? absl::Utf8SafeCEscape(bytes) : absl::CHexEscape(bytes);
  return absl::StrCat("\"", escaped, "\"");
}

}  // namespace gatefold::cli

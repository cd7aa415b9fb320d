#include "gatefold/base/log.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <iterator>

#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gatefold/base/utf8.h"

namespace gatefold {
namespace {

std::atomic<LogLevel> g_level{LogLevel::kInfo};
std::atomic<LogFormat> g_format{LogFormat::kKeyValue};

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "unknown";
}

// Of what controls a terminal, in one byte or, as UTF-8, in two.
bool IsControl(absl::string_view text, size_t i) {
  const auto at = [text](size_t k) { return static_cast<unsigned char>(text[k]); };
  return at(i) < 0x20 || at(i) == 0x7f ||
         (at(i) == 0xc2 && i + 1 < text.size() && at(i + 1) < 0xa0);
}

void AppendQuoted(absl::string_view text, std::string* out) {
  const std::string valid = ValidUtf8(std::string(text));
  out->push_back('"');
  for (size_t i = 0; i < valid.size(); ++i) {
    if (valid[i] == '"' || valid[i] == '\\') {
      out->push_back('\\');
      out->push_back(valid[i]);
    } else if (IsControl(valid, i)) {
      if (valid[i] == '\xc2') ++i;
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned char>(valid[i]));
      out->append(escaped);
    } else {
      out->push_back(valid[i]);
    }
  }
  out->push_back('"');
}

bool NeedsQuotes(absl::string_view text) {
  if (text.empty()) return true;
  for (const unsigned char c : text) {
    if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f) return true;
  }
  return false;
}

constexpr const char* kLogFormats[] = {"text", "json"};
constexpr const char* kLogLevels[] = {"debug", "info", "warning", "error"};

// An enum whose values count up from 0, by its names in that order.
template <typename Enum, size_t n>
bool ParseName(absl::string_view text, const char* const (&names)[n], Enum* value,
               std::string* error) {
  const auto found = std::find(std::begin(names), std::end(names), text);
  *value = static_cast<Enum>(found - std::begin(names));
  if (found != std::end(names)) return true;
  *error = absl::StrCat("must be one of ", absl::StrJoin(names, ", "));
  return false;
}

}  // namespace

bool AbslParseFlag(absl::string_view text, LogFormat* format, std::string* error) {
  return ParseName(text, kLogFormats, format, error);
}
std::string AbslUnparseFlag(LogFormat format) { return kLogFormats[static_cast<int>(format)]; }
bool AbslParseFlag(absl::string_view text, LogLevel* level, std::string* error) {
  return ParseName(text, kLogLevels, level, error);
}
std::string AbslUnparseFlag(LogLevel level) { return kLogLevels[static_cast<int>(level)]; }

void SetLogLevel(LogLevel level) { g_level = level; }
void SetLogFormat(LogFormat format) { g_format = format; }
LogFormat CurrentLogFormat() { return g_format.load(std::memory_order_relaxed); }
bool IsLogged(LogLevel level) { return level >= g_level.load(std::memory_order_relaxed); }

void LogEvent(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) {
  LogEvent(level, event, std::span(fields.begin(), fields.size()));
}

void LogEvent(LogLevel level, absl::string_view event, std::span<const LogField> fields) {
  if (!IsLogged(level)) return;
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::string line;
  if (CurrentLogFormat() == LogFormat::kJson) {
    absl::StrAppend(&line, "{\"time\":\"", time, "\",\"level\":\"", LevelName(level),
                    "\",\"event\":");
    AppendQuoted(event, &line);
    for (const LogField& field : fields) {
      line.push_back(',');
      AppendQuoted(field.key, &line);
      line.push_back(':');
      AppendQuoted(field.value, &line);
    }
    line.append("}\n");
  } else {
    absl::StrAppend(&line, time, " ", LevelName(level), " ", event);
    for (const LogField& field : fields) {
      absl::StrAppend(&line, " ", field.key, "=");
      if (NeedsQuotes(field.value)) {
        AppendQuoted(field.value, &line);
      } else {
        line.append(field.value);
      }
    }
    line.push_back('\n');
  }
  std::fwrite(line.data(), 1, line.size(), stderr);
}

}  // namespace gatefold

#pragma once

// One line per event on stderr: `time level event key=value ...`, or as JSON an object.
//   LogEvent(LogLevel::kInfo, "shard_ready", {{"shard", name}, {"experts", n}});
// Values with spaces or quotes are quoted. Prompts and generated text are never logged.
// Threads: safe; a line is written with one call, so lines do not mix.

#include <initializer_list>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace gatefold {

enum class LogLevel { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };
enum class LogFormat { kKeyValue, kJson };

// By their names: text, json; debug, info, warning, error. `error` says which there are. Abseil's
// flags of these types call them.
bool AbslParseFlag(absl::string_view text, LogFormat* format, std::string* error);
std::string AbslUnparseFlag(LogFormat format);
bool AbslParseFlag(absl::string_view text, LogLevel* level, std::string* error);
std::string AbslUnparseFlag(LogLevel level);

struct LogField {
  LogField(absl::string_view key, const absl::AlphaNum& value) : key(key), value(value.Piece()) {}
  absl::string_view key;
  std::string value;
};

// Lines below `level` are dropped. Both settings start as kInfo and kKeyValue; set them once at
// start, from flags.
void SetLogLevel(LogLevel level);
void SetLogFormat(LogFormat format);
LogFormat CurrentLogFormat();
// Whether an event of that level is written, for who would gather its fields in vain.
bool IsLogged(LogLevel level);

void LogEvent(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields);
void LogEvent(LogLevel level, absl::string_view event, std::span<const LogField> fields);

}  // namespace gatefold

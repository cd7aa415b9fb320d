#include "gatefold/checkpoint/strict_json.h"

#include <cstring>
#include <string>
#include <unordered_set>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

using nlohmann::json;

constexpr size_t kShown = 80;  // bytes of a name or value, in messages

// First pass over the text: finds what the document parser would accept silently, in memory
// bounded by the keys of the open objects.
class StrictnessCheck {
 public:
  StrictnessCheck(absl::string_view what, const JsonLimits& limits)
      : what_(what), limits_(limits) {}

  const absl::Status& status() const { return status_; }

  bool null() { return Value(); }
  bool boolean(bool) { return Value(); }
  bool number_integer(json::number_integer_t) { return Value(); }
  bool number_unsigned(json::number_unsigned_t) { return Value(); }
  bool number_float(json::number_float_t, const std::string&) { return Value(); }
  bool string(std::string&) { return Value(); }
  bool binary(json::binary_t&) { return Value(); }
  bool start_object(size_t) {
    keys_.emplace_back();
    return Value() && Deeper();
  }
  bool key(std::string& key) {
    if (keys_.back().insert(key).second) return Value();
    return Refuse(absl::InvalidArgumentError(
        absl::StrCat(what_, ": key \"", PrintableName(key), "\" appears twice")));
  }
  bool end_object() {
    keys_.pop_back();
    --depth_;
    return true;
  }
  bool start_array(size_t) { return Value() && Deeper(); }
  bool end_array() {
    --depth_;
    return true;
  }
  bool parse_error(size_t position, const std::string& token, const json::exception&) {
    return Refuse(absl::InvalidArgumentError(absl::StrCat(
        what_, ": not valid JSON at byte ", position, ", near \"", PrintableName(token), "\"")));
  }

 private:
  bool Refuse(absl::Status status) {
    status_ = std::move(status);
    return false;
  }
  bool Value() {
    if (++n_values_ <= limits_.max_values) return true;
    return Refuse(absl::ResourceExhaustedError(
        absl::StrCat(what_, ": more than ", limits_.max_values, " values")));
  }
  bool Deeper() {
    if (++depth_ <= limits_.max_depth) return true;
    return Refuse(absl::ResourceExhaustedError(
        absl::StrCat(what_, ": nested deeper than ", limits_.max_depth)));
  }

  const absl::string_view what_;
  const JsonLimits limits_;
  absl::Status status_;
  size_t n_values_ = 0;
  size_t depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;  // of the objects that are open
};

}  // namespace

std::string PrintableName(absl::string_view name) {
  if (name.size() <= kShown) return absl::CHexEscape(name);
  return absl::StrCat(absl::CHexEscape(name.substr(0, kShown)), "...");
}

std::string PrintableValue(const json& value) {
  const std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace);
  return text.size() <= kShown ? text : absl::StrCat(text.substr(0, kShown), "...");
}

absl::StatusOr<json> ParseStrictJson(absl::string_view text, absl::string_view what,
                                     const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(what, ": ", text.size(), " bytes; at most ", limits.max_bytes, " are parsed"));
  }
  // The parser takes a NUL for the end of its input, and skips a byte order mark.
  if (!text.empty() && std::memchr(text.data(), 0, text.size()) != nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": has a NUL byte"));
  }
  const char* begin = text.data();
  const char* end = begin + text.size();
  StrictnessCheck check(what, limits);
  if (!json::sax_parse(begin, end, &check)) {
    GF_RETURN_IF_ERROR(check.status());
    return absl::InvalidArgumentError(absl::StrCat(what, ": not valid JSON"));
  }
  json document = json::parse(begin, end, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (document.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": not valid JSON"));
  }
  return document;
}

}  // namespace gatefold

#include "gatefold/chat_template/jinja_value.h"

#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/unicode_additions.h"

namespace gatefold::jinja {
namespace {

constexpr uint64_t kBytesPerWeight = 32;
constexpr uint64_t kMaxWeight = uint64_t{1} << 48;

// Shortest digits that read back as the same number, in Python's layout.
std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const double magnitude = std::fabs(value);
  const bool scientific = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto result =
      std::to_chars(buffer, buffer + sizeof(buffer), value,
                    scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer, result.ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// As str.isprintable() has it: no separators but the space, nothing that is invisible or
// unassigned.
bool IsPrintable(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_CN: {
      const absl::string_view younger = AddedCategory(c);
      return !younger.empty() && younger != "Cf";
    }
    case UTF8PROC_CATEGORY_ZS:
      return c == ' ';
    default:
      return true;
  }
}

void AppendQuoted(absl::string_view text, std::string* out) {
  const bool has_single = text.find('\'') != absl::string_view::npos;
  const char quote = has_single && text.find('"') == absl::string_view::npos ? '"' : '\'';
  out->push_back(quote);
  for (size_t i = 0; i < text.size();) {
    const char32_t c = NextCodePoint(text, &i);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out->push_back('\\');
      AppendUtf8(c, out);
    } else if (c == '\n') {
      *out += "\\n";
    } else if (c == '\r') {
      *out += "\\r";
    } else if (c == '\t') {
      *out += "\\t";
    } else if (IsPrintable(c)) {
      AppendUtf8(c, out);
    } else if (c < 0x100) {
      absl::StrAppendFormat(out, "\\x%02x", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(c));
    } else {
      absl::StrAppendFormat(out, "\\U%08x", static_cast<uint32_t>(c));
    }
  }
  out->push_back(quote);
}

void AppendUtf16Escape(char32_t c, std::string* out) {
  if (c >= 0x10000) {
    c -= 0x10000;
    absl::StrAppendFormat(out, "\\u%04x\\u%04x", static_cast<uint32_t>(0xD800 + (c >> 10)),
                          static_cast<uint32_t>(0xDC00 + (c & 0x3FF)));
  } else {
    absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(c));
  }
}

void AppendJsonString(absl::string_view text, bool ascii, std::string* out) {
  out->push_back('"');
  for (size_t i = 0; i < text.size();) {
    const size_t begin = i;
    const char32_t c = NextCodePoint(text, &i);
    switch (c) {
      case '"':
        *out += "\\\"";
        break;
      case '\\':
        *out += "\\\\";
        break;
      case '\n':
        *out += "\\n";
        break;
      case '\r':
        *out += "\\r";
        break;
      case '\t':
        *out += "\\t";
        break;
      case '\b':
        *out += "\\b";
        break;
      case '\f':
        *out += "\\f";
        break;
      default:
        if (c < 0x20 || (ascii && c >= 0x7F)) {
          AppendUtf16Escape(c, out);
        } else {
          out->append(text.data() + begin, i - begin);
        }
    }
  }
  out->push_back('"');
}

void AppendLineBreak(const JsonStyle& style, int depth, std::string* out) {
  if (style.indent < 0) return;
  out->push_back('\n');
  out->append(static_cast<size_t>(style.indent) * depth, ' ');
}

}  // namespace

Value Value::Undefined(absl::string_view name) {
  return Shared(Kind::kUndefined, std::string(name));
}
Value Value::None() { return Value(Kind::kNone); }
Value Value::Bool(bool flag) {
  Value value(Kind::kBool);
  value.integer_ = flag;
  return value;
}
Value Value::Int(int64_t number) {
  Value value(Kind::kInt);
  value.integer_ = number;
  return value;
}
Value Value::Float(double number) {
  Value value(Kind::kFloat);
  value.float_ = number;
  return value;
}
Value Value::String(std::string text) {
  const uint64_t weight = 1 + text.size() / kBytesPerWeight;
  Value value = Shared(Kind::kString, std::move(text));
  value.weight_ = weight;
  return value;
}
Value Value::FromMacro(const Macro* macro) {
  Value value(Kind::kMacro);
  value.macro_ = macro;
  return value;
}
Value Value::Function(absl::string_view name) { return Shared(Kind::kFunction, std::string(name)); }
Value Value::Namespace(Dict dict) { return Shared(Kind::kNamespace, std::move(dict)); }

void Value::Weigh(const Value& part) {
  weight_ = std::min(weight_ + part.weight_, kMaxWeight);
  depth_ = std::max(depth_, part.depth_ + 1);
}

Value Value::FromList(List items) {
  Value value(Kind::kList);
  for (const Value& item : items) value.Weigh(item);
  value.shared_ = std::make_shared<List>(std::move(items));
  return value;
}
Value Value::Iterator(List items) {
  Value value = FromList(std::move(items));
  value.is_iterator_ = true;
  return value;
}
Value Value::Tuple(List items) {
  Value value = FromList(std::move(items));
  value.kind_ = Kind::kTuple;
  return value;
}
Value Value::FromDict(Dict dict) {
  Value value(Kind::kDict);
  for (const auto& [key, item] : dict.items) {
    value.weight_ += 1 + key.size() / kBytesPerWeight;
    value.Weigh(item);
  }
  value.shared_ = std::make_shared<Dict>(std::move(dict));
  return value;
}

std::optional<Value> Value::FromJson(const nlohmann::ordered_json& json, int max_depth) {
  if (max_depth == 0) return std::nullopt;
  if (json.is_null()) return None();
  if (json.is_boolean()) return Bool(json.get<bool>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return Float(json.get<double>());
  }
  if (json.is_number_integer()) return Int(json.get<int64_t>());
  if (json.is_number_float()) return Float(json.get<double>());
  if (const auto* text = json.get_ptr<const std::string*>()) {
    if (FindInvalidUtf8(*text) != kValidUtf8) return std::nullopt;
    return String(*text);
  }
  if (json.is_array()) {
    List items;
    for (const auto& item : json) {
      std::optional<Value> value = FromJson(item, max_depth - 1);
      if (!value.has_value()) return std::nullopt;
      items.push_back(*std::move(value));
    }
    return FromList(std::move(items));
  }
  Dict dict;
  for (const auto& [key, item] : json.items()) {
    std::optional<Value> value = FromJson(item, max_depth - 1);
    if (!value.has_value() || FindInvalidUtf8(key) != kValidUtf8) return std::nullopt;
    dict.items.emplace_back(key, *std::move(value));
  }
  return FromDict(std::move(dict));
}

bool Value::Truthy() const {
  switch (kind_) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return integer() != 0;
    case Kind::kFloat:
      return number() != 0;
    case Kind::kString:
      return !string().empty();
    case Kind::kList:
    case Kind::kTuple:
      return is_iterator_ || !list().empty();
    case Kind::kDict:
      return !dict().items.empty();
    default:
      return true;
  }
}

std::string Value::Str() const {
  if (kind_ == Kind::kString) return string();
  if (kind_ == Kind::kUndefined) return "";
  return Repr();
}

std::string Value::Repr() const {
  std::string out;
  switch (kind_) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return integer() ? "True" : "False";
    case Kind::kInt:
      return absl::StrCat(integer());
    case Kind::kFloat:
      return FloatRepr(number());
    case Kind::kString:
      AppendQuoted(string(), &out);
      return out;
    case Kind::kList:
    case Kind::kTuple: {
      const bool is_tuple = kind_ == Kind::kTuple;
      for (const Value& item : list()) absl::StrAppend(&out, out.empty() ? "" : ", ", item.Repr());
      if (is_tuple && list().size() == 1) out += ",";
      return is_tuple ? absl::StrCat("(", out, ")") : absl::StrCat("[", out, "]");
    }
    case Kind::kDict:
      for (const auto& [key, value] : dict().items) {
        if (!out.empty()) out += ", ";
        AppendQuoted(key, &out);
        absl::StrAppend(&out, ": ", value.Repr());
      }
      return absl::StrCat("{", out, "}");
    case Kind::kNamespace:
      return "<Namespace>";
    case Kind::kMacro:
    case Kind::kFunction:
      return "<function>";
  }
  return out;
}

absl::string_view Value::KindName() const {
  switch (kind_) {
    case Kind::kUndefined:
      return "an undefined value";
    case Kind::kNone:
      return "None";
    case Kind::kBool:
      return "a boolean";
    case Kind::kInt:
      return "an integer";
    case Kind::kFloat:
      return "a float";
    case Kind::kString:
      return "a string";
    case Kind::kList:
      return "a list";
    case Kind::kTuple:
      return "a tuple";
    case Kind::kDict:
      return "a mapping";
    case Kind::kNamespace:
      return "a namespace";
    case Kind::kMacro:
      return "a macro";
    case Kind::kFunction:
      return "a function";
  }
  return "";
}

int64_t Value::Length() const {
  switch (kind_) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return std::count_if(string().begin(), string().end(),
                           [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; });
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(list().size());
    case Kind::kDict:
      return static_cast<int64_t>(dict().items.size());
    default:
      return -1;
  }
}

bool Value::Equals(const Value& other) const {
  if (is_integer() && other.is_integer()) return integer() == other.integer();
  if (is_number() && other.is_number()) return number() == other.number();
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::kString:
    case Kind::kFunction:
      return string() == other.string();
    case Kind::kList:
    case Kind::kTuple:
      return std::equal(list().begin(), list().end(), other.list().begin(), other.list().end(),
                        [](const Value& a, const Value& b) { return a.Equals(b); });
    case Kind::kDict:
      if (dict().items.size() != other.dict().items.size()) return false;
      return std::all_of(dict().items.begin(), dict().items.end(), [&](const auto& item) {
        const Value* value = other.dict().Find(item.first);
        return value != nullptr && item.second.Equals(*value);
      });
    case Kind::kNamespace:
      return &dict() == &other.dict();
    case Kind::kMacro:
      return macro() == other.macro();
    default:
      return true;
  }
}

bool Value::HoldsNamespace() const {
  if (kind_ == Kind::kNamespace) return true;
  if (is_list()) {
    return std::any_of(list().begin(), list().end(),
                       [](const Value& item) { return item.HoldsNamespace(); });
  }
  if (kind_ != Kind::kDict) return false;
  return std::any_of(dict().items.begin(), dict().items.end(),
                     [](const auto& item) { return item.second.HoldsNamespace(); });
}

const Value* Dict::Find(absl::string_view key) const {
  for (const auto& [name, value] : items) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Dict::Set(absl::string_view key, Value value) {
  for (auto& [name, old] : items) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  items.emplace_back(std::string(key), std::move(value));
}

bool AppendJson(const Value& value, const JsonStyle& style, int depth, std::string* out) {
  switch (value.kind()) {
    case Value::Kind::kNone:
      *out += "null";
      return true;
    case Value::Kind::kBool:
      *out += value.integer() ? "true" : "false";
      return true;
    case Value::Kind::kInt:
      absl::StrAppend(out, value.integer());
      return true;
    case Value::Kind::kFloat: {
      const double number = value.number();
      *out += std::isnan(number)   ? "NaN"
              : std::isinf(number) ? (number < 0 ? "-Infinity" : "Infinity")
                                   : FloatRepr(number);
      return true;
    }
    case Value::Kind::kString:
      AppendJsonString(value.string(), style.ascii, out);
      return true;
    case Value::Kind::kList:
    case Value::Kind::kTuple: {
      out->push_back('[');
      bool first = true;
      for (const Value& item : value.list()) {
        if (!std::exchange(first, false)) *out += style.item_separator;
        AppendLineBreak(style, depth + 1, out);
        if (!AppendJson(item, style, depth + 1, out)) return false;
      }
      if (!first) AppendLineBreak(style, depth, out);
      out->push_back(']');
      return true;
    }
    case Value::Kind::kDict: {
      auto items = value.dict().items;
      if (style.sort_keys) {
        std::sort(items.begin(), items.end(),
                  [](const auto& a, const auto& b) { return a.first < b.first; });
      }
      out->push_back('{');
      bool first = true;
      for (const auto& [key, item] : items) {
        if (!std::exchange(first, false)) *out += style.item_separator;
        AppendLineBreak(style, depth + 1, out);
        AppendJsonString(key, style.ascii, out);
        *out += style.key_separator;
        if (!AppendJson(item, style, depth + 1, out)) return false;
      }
      if (!first) AppendLineBreak(style, depth, out);
      out->push_back('}');
      return true;
    }
    default:
      return false;
  }
}

}  // namespace gatefold::jinja

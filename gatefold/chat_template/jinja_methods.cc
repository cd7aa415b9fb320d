// Methods of strings, mappings and lists, and the functions that chat templates may call.

#include <algorithm>
#include <ctime>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gatefold/chat_template/jinja_interpreter.h"
#include "gatefold/chat_template/jinja_text.h"

namespace gatefold::jinja {
namespace {

using VKind = Value::Kind;

Value Unknown(Interpreter* in, const Call& call, const Value& object) {
  return in->Unsupported(call.line,
                         absl::StrCat("the method ", call.name, " of ", object.KindName()));
}

// A string argument; fails, and gives "", if it is another kind of value or missing.
std::string TextArgument(Interpreter* in, const Call& call, size_t index, absl::string_view name) {
  const Value* value = call.Find(index, name);
  if (value != nullptr && value->Is(VKind::kString)) return value->string();
  in->Fail(call.line, absl::StrCat(call.name, ": argument ", index + 1, " is not a string"));
  return "";
}

// `fallback` for None and where it is missing.
std::string TextArgumentOr(Interpreter* in, const Call& call, size_t index, absl::string_view name,
                           absl::string_view fallback) {
  const Value* value = call.Find(index, name);
  if (value == nullptr || value->Is(VKind::kNone)) return std::string(fallback);
  return TextArgument(in, call, index, name);
}

int64_t IntArgumentOr(Interpreter* in, const Call& call, size_t index, absl::string_view name,
                      int64_t fallback) {
  const Value* value = call.Find(index, name);
  if (value == nullptr) return fallback;
  if (value->is_integer()) return value->integer();
  in->Fail(call.line, absl::StrCat(call.name, ": argument ", index + 1, " is not an integer"));
  return fallback;
}

Value ListOfStrings(Interpreter* in, std::vector<std::string> texts) {
  List items;
  for (std::string& text : texts) items.push_back(Value::String(std::move(text)));
  return in->NewList(std::move(items));
}

Value StartsOrEnds(Interpreter* in, const Call& call, const std::string& text) {
  const Value* wanted = call.Find(0, "prefix");
  if (wanted == nullptr) return in->Fail(call.line, absl::StrCat(call.name, ": no argument"));
  const List candidates = wanted->Is(VKind::kTuple) ? wanted->list() : List{*wanted};
  for (const Value& candidate : candidates) {
    if (!candidate.Is(VKind::kString)) {
      return in->Fail(call.line, absl::StrCat(call.name, " ", candidate.KindName()));
    }
    if (call.name == "startswith" ? absl::StartsWith(text, candidate.string())
                                  : absl::EndsWith(text, candidate.string())) {
      return Value::Bool(true);
    }
  }
  return Value::Bool(false);
}

// Place in characters; -1 if there is none.
Value Find(Interpreter* in, const Call& call, const std::string& text) {
  const std::string wanted = TextArgument(in, call, 0, "sub");
  const bool from_right = call.name[0] == 'r';
  const size_t at = from_right ? text.rfind(wanted) : text.find(wanted);
  if (at == std::string::npos) {
    if (absl::EndsWith(call.name, "index")) return in->Fail(call.line, "substring not found");
    return Value::Int(-1);
  }
  return Value::Int(Value::String(text.substr(0, at)).Length());
}

Value Join(Interpreter* in, const Call& call, const std::string& separator) {
  const Value* parts = call.Find(0, "iterable");
  if (parts == nullptr) return in->Fail(call.line, "join: no argument");
  std::string out;
  bool first = true;
  for (const Value& part : in->Items(*parts, call.line)) {
    if (!part.Is(VKind::kString)) {
      return in->Fail(call.line, absl::StrCat("join: ", part.KindName()));
    }
    absl::StrAppend(&out, std::exchange(first, false) ? "" : separator, part.string());
    if (!in->Charge(part.string().size() + separator.size())) return Value();
  }
  return in->NewString(std::move(out));
}

Value Partition(Interpreter* in, const Call& call, const std::string& text) {
  const std::string separator = TextArgument(in, call, 0, "sep");
  const bool from_right = call.name == "rpartition";
  const size_t at = from_right ? text.rfind(separator) : text.find(separator);
  List parts = {Value::String(""), Value::String(""), Value::String("")};
  if (at == std::string::npos) {
    parts[from_right ? 2 : 0] = Value::String(text);
  } else {
    parts = {Value::String(text.substr(0, at)), Value::String(separator),
             Value::String(text.substr(at + separator.size()))};
  }
  return in->NewTuple(std::move(parts));
}

Value Pad(Interpreter* in, const Call& call, const std::string& text) {
  const int64_t width = IntArgumentOr(in, call, 0, "width", 0);
  const int64_t missing = width - Value::String(text).Length();
  if (missing <= 0) return in->NewString(text);
  if (!in->Charge(static_cast<size_t>(missing))) return Value();
  const std::string padding(static_cast<size_t>(missing), call.name == "zfill" ? '0' : ' ');
  const bool has_sign = call.name == "zfill" && !text.empty() && (text[0] == '-' || text[0] == '+');
  if (has_sign) return in->NewString(absl::StrCat(text.substr(0, 1), padding, text.substr(1)));
  return in->NewString(call.name == "ljust" ? text + padding : padding + text);
}

Value TransformString(Interpreter* in, const Call& call, const std::string& text) {
  const absl::string_view name = call.name;
  if (name == "upper") return in->NewString(ToUpper(text));
  if (name == "lower" || name == "casefold") return in->NewString(ToLower(text));
  if (name == "title") return in->NewString(TitleRuns(text));
  if (name == "capitalize") return in->NewString(Capitalize(text));
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Value* given = call.Find(0, "chars");
    if (given != nullptr && given->Is(VKind::kString) && given->string().empty()) {
      return in->NewString(text);  // no characters are stripped, not white space
    }
    const std::string chars = TextArgumentOr(in, call, 0, "chars", "");
    const Side side = name == "strip" ? Side::kBoth : name == "lstrip" ? Side::kLeft : Side::kRight;
    return in->NewString(std::string(Strip(text, chars, side)));
  }
  if (name == "removeprefix") {
    return in->NewString(std::string(absl::StripPrefix(text, TextArgument(in, call, 0, "prefix"))));
  }
  if (name == "removesuffix") {
    return in->NewString(std::string(absl::StripSuffix(text, TextArgument(in, call, 0, "suffix"))));
  }
  if (name == "replace") {
    const std::string from = TextArgument(in, call, 0, "old");
    const std::string to = TextArgument(in, call, 1, "new");
    const size_t n_places = from.empty() ? text.size() + 1 : CountOf(text, from);
    if (!in->Charge(text.size() + n_places * to.size())) return Value();
    return in->NewString(Replace(text, from, to, IntArgumentOr(in, call, 2, "count", -1)));
  }
  if (name == "ljust" || name == "rjust" || name == "zfill") return Pad(in, call, text);
  if (name == "join") return Join(in, call, text);
  return Unknown(in, call, Value::String(""));
}

Value StringMethod(Interpreter* in, const Call& call, const Value& object) {
  const std::string& text = object.string();
  if (!in->Charge(text.size())) return Value();
  const absl::string_view name = call.name;
  if (name == "startswith" || name == "endswith") return StartsOrEnds(in, call, text);
  if (name == "split" || name == "rsplit") {
    const Value* separator = call.Find(0, "sep");
    if (separator != nullptr && separator->Is(VKind::kString) && separator->string().empty()) {
      return in->Fail(call.line, "empty separator");
    }
    return ListOfStrings(in, Split(text, TextArgumentOr(in, call, 0, "sep", ""),
                                   IntArgumentOr(in, call, 1, "maxsplit", -1), name[0] == 'r'));
  }
  if (name == "splitlines") {
    const Value* keep_ends = call.Find(0, "keepends");
    return ListOfStrings(in, SplitLines(text, keep_ends != nullptr && keep_ends->Truthy()));
  }
  if (name == "partition" || name == "rpartition") return Partition(in, call, text);
  if (name == "find" || name == "rfind" || name == "index" || name == "rindex") {
    return Find(in, call, text);
  }
  if (name == "count") {
    const std::string part = TextArgument(in, call, 0, "sub");
    return Value::Int(part.empty() ? object.Length() + 1
                                   : static_cast<int64_t>(CountOf(text, part)));
  }
  if (name == "isdigit" || name == "isdecimal" || name == "isnumeric") {
    return Value::Bool(IsDigits(text));
  }
  if (name == "isalpha") return Value::Bool(IsAlphabetic(text));
  if (name == "isalnum") return Value::Bool(IsAlphanumeric(text));
  if (name == "isspace") return Value::Bool(IsSpaces(text));
  if (name == "islower") return Value::Bool(IsLower(text));
  if (name == "isupper") return Value::Bool(IsUpper(text));
  return TransformString(in, call, text);
}

Value DictMethod(Interpreter* in, const Call& call, const Value& object) {
  const Dict& dict = object.dict();
  if (!in->ChargeItems(dict.items.size())) return Value();
  if (call.name == "get") {
    const Value* key = call.Find(0, "key");
    if (key == nullptr) return in->Fail(call.line, "get: no key");
    const Value* value = key->Is(VKind::kString) ? dict.Find(key->string()) : nullptr;
    if (value != nullptr) return *value;
    const Value* fallback = call.Find(1, "default");
    return fallback != nullptr ? *fallback : Value::None();
  }
  if (call.name == "copy") return object;
  if (call.name != "keys" && call.name != "values" && call.name != "items") {
    return Unknown(in, call, object);
  }
  List items;
  for (const auto& [key, value] : dict.items) {
    items.push_back(call.name == "keys"     ? Value::String(key)
                    : call.name == "values" ? value
                                            : Value::Tuple({Value::String(key), value}));
  }
  return in->NewList(std::move(items));
}

Value ListMethod(Interpreter* in, const Call& call, const Value& object) {
  if (call.name == "copy") return object;
  if (call.name != "count" && call.name != "index") return Unknown(in, call, object);
  const Value* wanted = call.Find(0, "value");
  if (wanted == nullptr) return in->Fail(call.line, absl::StrCat(call.name, ": no value"));
  if (!in->ChargeWalk(object)) return Value();
  int64_t n = 0;
  for (size_t i = 0; i < object.list().size(); ++i) {
    if (!object.list()[i].Equals(*wanted)) continue;
    if (call.name == "index") return Value::Int(static_cast<int64_t>(i));
    ++n;
  }
  return call.name == "count" ? Value::Int(n) : in->Fail(call.line, "value not in list");
}

Value Range(Interpreter* in, const Call& call) {
  const size_t n = call.positional.size();
  for (const Value& bound : call.positional) {
    if (!bound.is_integer()) return in->Fail(call.line, "range: a bound is not an integer");
  }
  if (n < 1 || n > 3) return in->Fail(call.line, "range takes 1 to 3 arguments");
  const int64_t begin = n == 1 ? 0 : call.positional[0].integer();
  const int64_t end = call.positional[n == 1 ? 0 : 1].integer();
  const int64_t step = n == 3 ? call.positional[2].integer() : 1;
  if (step == 0) return in->Fail(call.line, "range: step 0");
  List items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (!in->ChargeItems(1)) return Value();
    items.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return in->NewList(std::move(items));
}

Value MakeDict(Interpreter* in, const Call& call) {
  Dict dict;
  for (const Value& given : call.positional) {
    if (!given.Is(VKind::kDict)) return in->Unsupported(call.line, "dict() of this argument");
    for (const auto& [key, value] : given.dict().items) dict.Set(key, value);
  }
  for (const auto& [name, value] : call.named) dict.Set(name, value);
  if (!in->ChargeItems(dict.items.size())) return Value();
  if (call.name == "dict") return in->NewDict(std::move(dict));
  for (const auto& [name, value] : dict.items) {
    if (!in->ChargeWalk(value)) return Value();
    if (value.HoldsNamespace()) {
      return in->Unsupported(call.line, "a namespace within a namespace");
    }
  }
  return Value::Namespace(std::move(dict));
}

Value StrftimeNow(Interpreter* in, const Call& call) {
  const std::string format = TextArgument(in, call, 0, "format");
  if (!in->ok()) return Value();
  const absl::Time now = in->now() == absl::InfinitePast() ? absl::Now() : in->now();
  const std::tm civil = absl::ToTM(now, absl::LocalTimeZone());
  char buffer[256];
  const size_t size = std::strftime(buffer, sizeof(buffer), format.c_str(), &civil);
  if (size == 0 && !format.empty()) return in->Fail(call.line, "strftime_now: too long a format");
  return in->NewString(std::string(buffer, size));
}

// Of methods that have parameters.
struct Signature {
  absl::string_view method, parameters;
};
constexpr Signature kSignatures[] = {
    {"count", "sub"},           {"endswith", "prefix"},     {"find", "sub"},
    {"get", "key default"},     {"index", "sub"},           {"join", "iterable"},
    {"ljust", "width"},         {"lstrip", "chars"},        {"partition", "sep"},
    {"removeprefix", "prefix"}, {"removesuffix", "suffix"}, {"replace", "old new count"},
    {"rfind", "sub"},           {"rindex", "sub"},          {"rjust", "width"},
    {"rpartition", "sep"},      {"rsplit", "sep maxsplit"}, {"rstrip", "chars"},
    {"split", "sep maxsplit"},  {"splitlines", "keepends"}, {"startswith", "prefix"},
    {"strip", "chars"},         {"zfill", "width"}};

bool TakesArguments(Interpreter* in, const Call& call) {
  for (const auto& [method, parameters] : kSignatures) {
    if (method == call.name) return in->Takes(call, parameters);
  }
  return in->Takes(call, "");
}

}  // namespace

bool IsDictMethod(absl::string_view name) {
  return name == "items" || name == "keys" || name == "values" || name == "get" || name == "copy" ||
         name == "update" || name == "pop" || name == "popitem" || name == "clear" ||
         name == "setdefault" || name == "fromkeys";
}

Value CallMethod(Interpreter* in, const Call& call, const Value& object) {
  if (call.name == "cycle" && object.Is(VKind::kDict) && !call.positional.empty()) {
    const Value* index = object.dict().Find("index0");
    if (index != nullptr && index->is_integer() && index->integer() >= 0) {
      return call.positional[index->integer() % call.positional.size()];
    }
  }
  const Value result = object.Is(VKind::kString) ? StringMethod(in, call, object)
                       : object.is_list()        ? ListMethod(in, call, object)
                       : object.Is(VKind::kDict) ? DictMethod(in, call, object)
                                                 : Unknown(in, call, object);
  // Not before, so that of an unknown method the name is refused.
  return TakesArguments(in, call) ? result : Value();
}

Value CallFunction(Interpreter* in, const Call& call) {
  if (call.name == "range") return Range(in, call);
  if (call.name == "dict" || call.name == "namespace") return MakeDict(in, call);
  if (call.name == "raise_exception") return in->Raise(TextArgument(in, call, 0, "message"));
  if (call.name == "strftime_now") return StrftimeNow(in, call);
  return in->Unsupported(call.line, absl::StrCat("the function ", call.name));
}

}  // namespace gatefold::jinja

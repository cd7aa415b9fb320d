// Filters and tests.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gatefold/chat_template/jinja_interpreter.h"
#include "gatefold/chat_template/jinja_text.h"

namespace gatefold::jinja {
namespace {

using VKind = Value::Kind;

bool FlagArgument(const Call& call, size_t index, absl::string_view name) {
  const Value* value = call.Find(index, name);
  return value != nullptr && value->Truthy();
}

// Method of a string under the same name, after str().
Value AsMethod(Interpreter* in, const Call& call, const Value& input) {
  return CallMethod(in, call, Value::String(in->Str(input)));
}

Value Trim(Interpreter* in, const Call& call, const Value& input) {
  Call strip = call;
  strip.name = "strip";
  return AsMethod(in, strip, input);
}

Value Title(Interpreter* in, const Call&, const Value& input) {
  return in->NewString(TitleWords(in->Str(input)));
}

Value ToStr(Interpreter* in, const Call&, const Value& input) {
  return in->NewString(in->Str(input));
}

Value Safe(Interpreter*, const Call&, const Value& input) { return input; }

Value Length(Interpreter* in, const Call& call, const Value& input) {
  const int64_t length = input.Length();
  if (length < 0) return in->Fail(call.line, absl::StrCat(input.KindName(), " has no length"));
  return Value::Int(length);
}

Value Default(Interpreter*, const Call& call, const Value& input) {
  const bool replaces =
      input.Is(VKind::kUndefined) || (FlagArgument(call, 1, "boolean") && !input.Truthy());
  if (!replaces) return input;
  const Value* value = call.Find(0, "default_value");
  return value != nullptr ? *value : Value::String("");
}

Value First(Interpreter* in, const Call& call, const Value& input) {
  const List items = in->Items(input, call.line);
  return items.empty() ? Value::Undefined("the first item of nothing") : items.front();
}

Value Last(Interpreter* in, const Call& call, const Value& input) {
  const List items = in->Items(input, call.line);
  return items.empty() ? Value::Undefined("the last item of nothing") : items.back();
}

Value ToList(Interpreter* in, const Call& call, const Value& input) {
  return in->NewList(in->Items(input, call.line));
}

Value Reverse(Interpreter* in, const Call& call, const Value& input) {
  List items = in->Items(input, call.line);
  std::reverse(items.begin(), items.end());
  if (!input.Is(VKind::kString)) return in->NewIterator(std::move(items));
  std::string text;
  for (const Value& item : items) text += item.string();
  return in->NewString(std::move(text));
}

Value ItemsOf(Interpreter* in, const Call& call, const Value& input) {
  if (input.Is(VKind::kUndefined)) return in->NewIterator({});
  if (!input.Is(VKind::kDict)) {
    return in->Fail(call.line, absl::StrCat("items of ", input.KindName()));
  }
  return in->NewIterator(in->Items(CallMethod(in, call, input), call.line));
}

// "a.b.0" of a value.
Value AttributePath(Interpreter* in, const Value& value, const Value& path, int line) {
  if (path.is_integer()) return in->GetItem(value, path, line);
  Value found = value;
  for (const absl::string_view part : absl::StrSplit(in->Str(path), '.')) {
    int64_t index = 0;
    found = absl::SimpleAtoi(part, &index)
                ? in->GetItem(found, Value::Int(index), line)
                : in->GetItem(found, Value::String(std::string(part)), line);
  }
  return found;
}

// What a filter with an argument `attribute` looks at.
Value KeyOf(Interpreter* in, const Call& call, size_t index, const Value& item) {
  const Value* attribute = call.Find(index, "attribute");
  if (attribute == nullptr || attribute->Is(VKind::kNone)) return item;
  return AttributePath(in, item, *attribute, call.line);
}

Value Join(Interpreter* in, const Call& call, const Value& input) {
  const Value* separator_value = call.Find(0, "d");
  const std::string separator = separator_value == nullptr ? "" : in->Str(*separator_value);
  std::string out;
  bool first = true;
  for (const Value& item : in->Items(input, call.line)) {
    const std::string text = in->Str(KeyOf(in, call, 1, item));
    if (!in->Charge(separator.size())) return Value();
    absl::StrAppend(&out, std::exchange(first, false) ? "" : separator, text);
  }
  return in->NewString(std::move(out));
}

// Sorting ignores case unless told otherwise.
Value SortKey(const Value& key, bool case_sensitive) {
  return key.Is(VKind::kString) && !case_sensitive ? Value::String(ToLower(key.string())) : key;
}

List Sorted(Interpreter* in, int line, std::vector<std::pair<Value, Value>> keyed, bool reverse) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    if (!in->ok()) return false;
    return reverse ? in->Order(b.first, a.first, line) < 0 : in->Order(a.first, b.first, line) < 0;
  });
  List items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return items;
}

Value Sort(Interpreter* in, const Call& call, const Value& input) {
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : in->Items(input, call.line)) {
    keyed.emplace_back(SortKey(KeyOf(in, call, 2, item), FlagArgument(call, 1, "case_sensitive")),
                       item);
  }
  return in->NewList(Sorted(in, call.line, std::move(keyed), FlagArgument(call, 0, "reverse")));
}

Value DictSort(Interpreter* in, const Call& call, const Value& input) {
  if (!input.Is(VKind::kDict)) {
    return in->Fail(call.line, absl::StrCat("dictsort of ", input.KindName()));
  }
  const Value* by = call.Find(1, "by");
  const bool by_value = by != nullptr && by->Is(VKind::kString) && by->string() == "value";
  std::vector<std::pair<Value, Value>> keyed;
  if (!in->ChargeItems(input.dict().items.size())) return Value();
  for (const auto& [key, value] : input.dict().items) {
    keyed.emplace_back(
        SortKey(by_value ? value : Value::String(key), FlagArgument(call, 0, "case_sensitive")),
        Value::Tuple({Value::String(key), value}));
  }
  return in->NewList(Sorted(in, call.line, std::move(keyed), FlagArgument(call, 2, "reverse")));
}

Value Unique(Interpreter* in, const Call& call, const Value& input) {
  List kept, seen;
  for (const Value& item : in->Items(input, call.line)) {
    const Value key = SortKey(KeyOf(in, call, 1, item), FlagArgument(call, 0, "case_sensitive"));
    if (!in->ChargeItems(seen.size()) || !in->ChargeWalk(key)) return Value();
    const bool is_new = std::none_of(seen.begin(), seen.end(),
                                     [&](const Value& other) { return other.Equals(key); });
    if (!is_new) continue;
    seen.push_back(key);
    kept.push_back(item);
  }
  return in->NewIterator(std::move(kept));
}

Value Extreme(Interpreter* in, const Call& call, const Value& input) {
  const int sign = call.name == "max" ? 1 : -1;
  Value best = Value::Undefined("the extreme of nothing"), best_key;
  for (const Value& item : in->Items(input, call.line)) {
    const Value key = SortKey(KeyOf(in, call, 1, item), FlagArgument(call, 0, "case_sensitive"));
    if (!best.Is(VKind::kUndefined) && in->Order(key, best_key, call.line) != sign) continue;
    best = item;
    best_key = key;
  }
  return best;
}

Value Sum(Interpreter* in, const Call& call, const Value& input) {
  int64_t integer = 0;
  double number = 0;
  bool is_integer = true;
  for (const Value& item : in->Items(input, call.line)) {
    const Value key = KeyOf(in, call, 0, item);
    if (!key.is_number()) return in->Fail(call.line, absl::StrCat("sum with ", key.KindName()));
    is_integer =
        is_integer && key.is_integer() && !__builtin_add_overflow(integer, key.integer(), &integer);
    number += key.number();
  }
  return is_integer ? Value::Int(integer) : Value::Float(number);
}

Value ToInt(Interpreter*, const Call& call, const Value& input) {
  const Value* fallback = call.Find(0, "default");
  const Value otherwise = fallback != nullptr ? *fallback : Value::Int(0);
  if (input.is_integer()) return Value::Int(input.integer());
  double number = 0;
  int64_t integer = 0;
  if (input.Is(VKind::kString)) {
    if (absl::SimpleAtoi(input.string(), &integer)) return Value::Int(integer);
    if (!absl::SimpleAtod(input.string(), &number)) return otherwise;
  } else if (input.Is(VKind::kFloat)) {
    number = input.number();
  } else {
    return otherwise;
  }
  return std::fabs(number) < 9e18 ? Value::Int(static_cast<int64_t>(number)) : otherwise;
}

Value ToFloat(Interpreter*, const Call& call, const Value& input) {
  double number = 0;
  if (input.is_number()) return Value::Float(input.number());
  if (input.Is(VKind::kString) && absl::SimpleAtod(input.string(), &number)) {
    return Value::Float(number);
  }
  const Value* fallback = call.Find(0, "default");
  return fallback != nullptr ? *fallback : Value::Float(0);
}

Value Abs(Interpreter* in, const Call& call, const Value& input) {
  if (input.Is(VKind::kFloat)) return Value::Float(std::fabs(input.number()));
  if (!input.is_integer() || input.integer() == INT64_MIN) {
    return in->Fail(call.line, absl::StrCat("abs of ", input.KindName()));
  }
  return Value::Int(std::abs(input.integer()));
}

Value Round(Interpreter* in, const Call& call, const Value& input) {
  const Value* precision = call.Find(0, "precision");
  const Value* method = call.Find(1, "method");
  if (!input.is_number() || (precision != nullptr && !precision->is_integer())) {
    return in->Fail(call.line, absl::StrCat("round of ", input.KindName()));
  }
  const int64_t digits = precision == nullptr ? 0 : precision->integer();
  const double scale = std::pow(10.0, static_cast<double>(std::clamp<int64_t>(digits, -300, 300)));
  const std::string name = method == nullptr ? "common" : in->Str(*method);
  const double scaled = input.number() * scale;
  const double rounded = name == "ceil"    ? std::ceil(scaled)
                         : name == "floor" ? std::floor(scaled)
                                           : std::nearbyint(scaled);
  const double result = rounded / scale;
  // Python's round() makes integers of integers. (The other methods divide.)
  if (input.is_integer() && name == "common" && std::fabs(result) < 9e18) {
    return Value::Int(digits < 0 ? static_cast<int64_t>(result) : input.integer());
  }
  return Value::Float(result);
}

Value Indent(Interpreter* in, const Call& call, const Value& input) {
  const Value* width = call.Find(0, "width");
  std::string indent = "    ";
  if (width != nullptr && width->Is(VKind::kString)) indent = width->string();
  if (width != nullptr && width->is_integer()) {
    if (width->integer() < 0 || width->integer() > 1000) {
      return in->Fail(call.line, "indent: width is not from 0 to 1000");
    }
    indent.assign(static_cast<size_t>(width->integer()), ' ');
  }
  const bool indents_blank = FlagArgument(call, 2, "blank");
  std::string out;
  bool first = true;
  for (const std::string& line : SplitLines(in->Str(input) + "\n", /*keep_ends=*/false)) {
    const bool indents = first ? FlagArgument(call, 1, "first") : indents_blank || !line.empty();
    if (!in->Charge(indent.size() + line.size())) return Value();
    absl::StrAppend(&out, std::exchange(first, false) ? "" : "\n", indents ? indent : "", line);
  }
  return in->NewString(std::move(out));
}

Value Escape(Interpreter* in, const Call&, const Value& input) {
  std::string text = in->Str(input);
  if (!in->Charge(text.size() * 5)) return Value();
  for (const auto& [from, to] :
       {std::pair("&", "&amp;"), {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}}) {
    text = Replace(text, from, to, -1);
  }
  return in->NewString(std::move(text));
}

Value ToJson(Interpreter* in, const Call& call, const Value& input) {
  // HF's own form of the filter: tojson(x, ensure_ascii, indent, separators, sort_keys).
  JsonStyle style;
  style.ascii = FlagArgument(call, 0, "ensure_ascii");
  style.sort_keys = FlagArgument(call, 3, "sort_keys");
  const Value* indent = call.Find(1, "indent");
  if (indent != nullptr && !indent->Is(VKind::kNone)) {
    if (!indent->is_integer() || indent->integer() < 0 || indent->integer() > 100) {
      return in->Fail(call.line, "tojson: indent is not from 0 to 100");
    }
    style.indent = static_cast<int>(indent->integer());
    style.item_separator = ",";
  }
  const Value* separators = call.Find(2, "separators");
  if (separators != nullptr && !separators->Is(VKind::kNone)) {
    if (!separators->is_list() || separators->list().size() != 2) {
      return in->Fail(call.line, "tojson: separators are not two strings");
    }
    style.item_separator = in->Str(separators->list()[0]);
    style.key_separator = in->Str(separators->list()[1]);
  }
  // Indents and separators come on top of what the value itself weighs.
  const size_t per_item = style.item_separator.size() + style.key_separator.size() +
                          static_cast<size_t>(std::max(style.indent, 0)) * input.depth();
  if (!in->ChargeWalk(input) ||
      (input.weight() > 1 && !in->Charge(per_item * static_cast<size_t>(input.weight())))) {
    return Value();
  }
  std::string out;
  if (!AppendJson(input, style, 0, &out)) {
    return in->Fail(call.line, absl::StrCat("tojson of ", input.KindName(),
                                            " or of what JSON has no form for"));
  }
  return in->NewString(std::move(out));
}

// The rest of a call whose first argument names another filter or a test.
Call Inner(Interpreter* in, const Call& call, size_t n_taken) {
  Call inner{call.line, "", {}, call.named};
  if (call.positional.size() >= n_taken && call.positional[n_taken - 1].Is(VKind::kString)) {
    inner.name = call.positional[n_taken - 1].string();
    inner.positional.assign(call.positional.begin() + n_taken, call.positional.end());
  } else {
    in->Fail(call.line, absl::StrCat(call.name, ": no name"));
  }
  return inner;
}

Value Map(Interpreter* in, const Call& call, const Value& input) {
  // As Jinja's: `tools|map(...)` of none gives nothing, where `tools|list` fails.
  if (!input.Truthy()) return in->NewIterator({});
  List mapped;
  const Value* attribute = call.positional.empty() ? call.Find(0, "attribute") : nullptr;
  const Value* fallback = call.positional.empty() ? call.Find(1, "default") : nullptr;
  const Call inner = attribute == nullptr ? Inner(in, call, 1) : call;
  for (const Value& item : in->Items(input, call.line)) {
    if (!in->ok()) break;
    Value value = attribute == nullptr ? ApplyFilter(in, inner, item)
                                       : AttributePath(in, item, *attribute, call.line);
    if (value.Is(VKind::kUndefined) && fallback != nullptr) value = *fallback;
    mapped.push_back(std::move(value));
  }
  return in->NewIterator(std::move(mapped));
}

// select, reject, selectattr, rejectattr
Value Select(Interpreter* in, const Call& call, const Value& input) {
  if (!input.Truthy()) return in->NewIterator({});  // see Map
  const bool keeps = call.name[0] == 's';
  const bool by_attribute = call.name == "selectattr" || call.name == "rejectattr";
  const size_t n_before = by_attribute ? 1 : 0;
  if (call.positional.size() < n_before) {
    return in->Fail(call.line, absl::StrCat(call.name, ": no attribute"));
  }
  const bool has_test = call.positional.size() > n_before;
  const Call test = has_test ? Inner(in, call, n_before + 1) : call;
  List kept;
  for (const Value& item : in->Items(input, call.line)) {
    if (!in->ok()) break;
    const Value subject =
        by_attribute ? AttributePath(in, item, call.positional[0], call.line) : item;
    const bool passes = has_test ? ApplyTest(in, test, subject) : subject.Truthy();
    if (passes == keeps) kept.push_back(item);
  }
  return in->NewIterator(std::move(kept));
}

Value Attribute(Interpreter* in, const Call& call, const Value& input) {
  const Value* name = call.Find(0, "name");
  if (name == nullptr) return in->Fail(call.line, "attr: no name");
  return in->GetAttribute(input, in->Str(*name), call.line);
}

// Of a filter whose arguments are those of another one, or of a test.
constexpr absl::string_view kAnyParameters = "*";

struct Filter {
  Value (*function)(Interpreter*, const Call&, const Value&);
  absl::string_view parameters;  // in their order
};

const absl::flat_hash_map<absl::string_view, Filter>& Filters() {
  static const auto* const kFilters = new absl::flat_hash_map<absl::string_view, Filter>{
      {"abs", {Abs, ""}},
      {"attr", {Attribute, "name"}},
      {"capitalize", {AsMethod, ""}},
      {"count", {Length, ""}},
      {"d", {Default, "default_value boolean"}},
      {"default", {Default, "default_value boolean"}},
      {"dictsort", {DictSort, "case_sensitive by reverse"}},
      {"e", {Escape, ""}},
      {"escape", {Escape, ""}},
      {"first", {First, ""}},
      {"float", {ToFloat, "default"}},
      {"indent", {Indent, "width first blank"}},
      {"int", {ToInt, "default"}},
      {"items", {ItemsOf, ""}},
      {"join", {Join, "d attribute"}},
      {"last", {Last, ""}},
      {"length", {Length, ""}},
      {"list", {ToList, ""}},
      {"lower", {AsMethod, ""}},
      {"map", {Map, kAnyParameters}},
      {"max", {Extreme, "case_sensitive attribute"}},
      {"min", {Extreme, "case_sensitive attribute"}},
      {"reject", {Select, kAnyParameters}},
      {"rejectattr", {Select, kAnyParameters}},
      {"replace", {AsMethod, "old new count"}},
      {"reverse", {Reverse, ""}},
      {"round", {Round, "precision method"}},
      {"safe", {Safe, ""}},
      {"select", {Select, kAnyParameters}},
      {"selectattr", {Select, kAnyParameters}},
      {"sort", {Sort, "reverse case_sensitive attribute"}},
      {"string", {ToStr, ""}},
      {"sum", {Sum, "attribute"}},
      {"title", {Title, ""}},
      {"tojson", {ToJson, "ensure_ascii indent separators sort_keys"}},
      {"trim", {Trim, "chars"}},
      {"unique", {Unique, "case_sensitive attribute"}},
      {"upper", {AsMethod, ""}}};
  return *kFilters;
}

bool IsIterable(const Value& value) {
  return value.Length() >= 0;  // an undefined value is, too
}

// Tests with an argument.
bool Relation(Interpreter* in, const Call& call, const Value& input, absl::string_view name) {
  const Value* other = call.Find(0, "other");
  if (other == nullptr) {
    in->Fail(call.line, absl::StrCat("the test ", name, " needs an argument"));
    return false;
  }
  if (!in->ChargeWalk(input)) return false;
  if (name == "==" || name == "eq" || name == "equalto") return input.Equals(*other);
  if (name == "!=" || name == "ne") return !input.Equals(*other);
  if (name == "sameas") return input.kind() == other->kind() && input.Equals(*other);
  if (name == "in") return in->Contains(*other, input, call.line);
  if (name == "divisibleby") {
    if (!input.is_integer() || !other->is_integer() || other->integer() == 0) {
      in->Fail(call.line, "divisibleby needs two integers");
      return false;
    }
    return other->integer() == -1 || input.integer() % other->integer() == 0;
  }
  const bool lt = name == "<" || name == "lt" || name == "lessthan";
  const bool le = name == "<=" || name == "le";
  const bool gt = name == ">" || name == "gt" || name == "greaterthan";
  const bool ge = name == ">=" || name == "ge";
  if (!lt && !le && !gt && !ge) {
    in->Unsupported(call.line, absl::StrCat("the test ", name));
    return false;
  }
  const int order = in->Order(input, *other, call.line);
  return lt ? order < 0 : le ? order <= 0 : gt ? order > 0 : order >= 0;
}

}  // namespace

Value ApplyFilter(Interpreter* in, const Call& call, const Value& input) {
  const auto it = Filters().find(call.name);
  if (it == Filters().end()) {
    return in->Unsupported(call.line, absl::StrCat("the filter ", call.name));
  }
  const auto& [function, parameters] = it->second;
  if (parameters != kAnyParameters && !in->Takes(call, parameters)) return Value();
  return function(in, call, input);
}

bool ApplyTest(Interpreter* in, const Call& call, const Value& input) {
  const absl::string_view name = call.name;
  const VKind kind = input.kind();
  if (name == "defined") return kind != VKind::kUndefined;
  if (name == "undefined") return kind == VKind::kUndefined;
  if (name == "none") return kind == VKind::kNone;
  if (name == "string") return kind == VKind::kString;
  if (name == "mapping") return kind == VKind::kDict;
  if (name == "iterable" || name == "sequence") return IsIterable(input);
  if (name == "number") return input.is_number();
  if (name == "integer") return kind == VKind::kInt;
  if (name == "float") return kind == VKind::kFloat;
  if (name == "boolean") return kind == VKind::kBool;
  if (name == "true") return kind == VKind::kBool && input.integer() != 0;
  if (name == "false") return kind == VKind::kBool && input.integer() == 0;
  if (name == "callable") return kind == VKind::kMacro || kind == VKind::kFunction;
  if (name == "odd" || name == "even") {
    if (!input.is_integer()) in->Fail(call.line, absl::StrCat(input.KindName(), " is ", name));
    return in->ok() && (input.integer() % 2 != 0) == (name == "odd");
  }
  if (name == "lower") return IsLower(in->Str(input));
  if (name == "upper") return IsUpper(in->Str(input));
  return Relation(in, call, input, name);
}

}  // namespace gatefold::jinja

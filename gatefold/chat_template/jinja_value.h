#pragma once

// Values of chat templates, which behave as Python's do.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace gatefold::jinja {

struct Macro;  // a statement; see jinja_ast.h
struct Dict;
class Value;
using List = std::vector<Value>;

// Cheap to copy: strings and containers are shared, and never change but for namespaces.
class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kList,
    kTuple,
    kDict,
    kNamespace,
    kMacro,
    kFunction,
  };

  Value() = default;  // undefined
  static Value Undefined(absl::string_view name);
  static Value None();
  static Value Bool(bool value);
  static Value Int(int64_t value);
  static Value Float(double value);
  static Value String(std::string value);
  static Value FromList(List items);
  // A list, but true even if it is empty: Python knows no better of what it has yet to go through.
  static Value Iterator(List items);
  static Value Tuple(List items);
  static Value FromDict(Dict dict);
  static Value Namespace(Dict dict);
  static Value FromMacro(const Macro* macro);
  static Value Function(absl::string_view name);  // built in
  // Nothing if `json` is nested too deeply to be walked through, or has text that is not UTF-8.
  static std::optional<Value> FromJson(const nlohmann::ordered_json& json, int max_depth = 100);

  Kind kind() const { return kind_; }
  bool Is(Kind kind) const { return kind_ == kind; }
  bool is_list() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  bool is_dict() const { return kind_ == Kind::kDict || kind_ == Kind::kNamespace; }
  bool is_number() const { return is_integer() || kind_ == Kind::kFloat; }
  bool is_integer() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }

  // Each needs the kind it names.
  int64_t integer() const { return integer_; }  // bool counts
  double number() const { return kind_ == Kind::kFloat ? float_ : static_cast<double>(integer_); }
  // kString; of kUndefined and kFunction the name.
  const std::string& string() const {
    static const std::string* const kEmpty = new std::string;
    return shared_ == nullptr ? *kEmpty : *static_cast<const std::string*>(shared_.get());
  }
  const List& list() const { return *static_cast<const List*>(shared_.get()); }
  const Dict& dict() const { return *static_cast<const Dict*>(shared_.get()); }
  Dict& mutable_dict() const { return *static_cast<Dict*>(shared_.get()); }  // kNamespace
  const Macro* macro() const { return macro_; }

  // Size of what a walk through the value would meet, shared parts as often as they are met; and
  // how deep it would go. Namespaces are not walked through.
  uint64_t weight() const { return weight_; }
  int depth() const { return depth_; }

  bool Truthy() const;
  // As str() does; strings as they are.
  std::string Str() const;
  // As repr() does.
  std::string Repr() const;
  // "a string", for messages.
  absl::string_view KindName() const;
  // Of strings in characters; -1 for what has no length.
  int64_t Length() const;
  // As == does.
  bool Equals(const Value& other) const;
  // Whether it is or holds a namespace, which might then hold itself.
  bool HoldsNamespace() const;

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  template <typename T>
  static Value Shared(Kind kind, T content) {
    Value value(kind);
    value.shared_ = std::make_shared<T>(std::move(content));
    return value;
  }
  void Weigh(const Value& part);

  Kind kind_ = Kind::kUndefined;
  bool is_iterator_ = false;
  int depth_ = 1;
  uint64_t weight_ = 1;
  int64_t integer_ = 0;
  double float_ = 0;
  const Macro* macro_ = nullptr;
  std::shared_ptr<void> shared_;  // a string, List or Dict
};

// In the order of insertion.
struct Dict {
  std::vector<std::pair<std::string, Value>> items;

  const Value* Find(absl::string_view key) const;  // null if absent
  void Set(absl::string_view key, Value value);
};

struct JsonStyle {
  int indent = -1;  // negative: on one line
  bool ascii = false;
  bool sort_keys = false;
  std::string item_separator = ", ", key_separator = ": ";
};

// Appends `value` as Python's json.dumps writes it. False for values that JSON has not.
bool AppendJson(const Value& value, const JsonStyle& style, int depth, std::string* out);

}  // namespace gatefold::jinja

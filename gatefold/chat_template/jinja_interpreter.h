#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/chat_template/jinja_ast.h"
#include "gatefold/chat_template/jinja_value.h"

namespace gatefold::jinja {

// The arguments of a filter, test, method, function or macro.
struct Call {
  int line;
  absl::string_view name;
  List positional;
  std::vector<std::pair<absl::string_view, Value>> named;

  // By place, or by name; null if absent.
  const Value* Find(size_t index, absl::string_view name) const;
};

// Runs one template once. The first error sticks: after it everything evaluates to undefined and
// nothing more is written.
class Interpreter {
 public:
  explicit Interpreter(absl::Time now) : now_(now) {}

  void SetGlobal(absl::string_view name, Value value);
  absl::StatusOr<std::string> Run(const Template& parsed);

  // For the parts of the language that live in files of their own.

  bool ok() const { return status_.ok(); }
  absl::Time now() const { return now_; }
  // InvalidArgument, Unimplemented. All return an undefined value.
  Value Fail(int line, absl::string_view what);
  Value Unsupported(int line, absl::string_view what);
  Value Raise(absl::string_view message);  // with the template's own words
  // Whether all arguments of `call` are among `parameters`, names with spaces between them. Fails
  // where one is not: to leave it out of account would be to compute something else.
  bool Takes(const Call& call, absl::string_view parameters);
  // Pays for work in proportion to `n_bytes`. False, with ResourceExhausted, past the limit.
  bool Charge(size_t n_bytes);
  bool ChargeItems(size_t n_items) { return Charge(n_items * sizeof(Value)); }
  // For a walk through the value.
  bool ChargeWalk(const Value& value);
  // Values, paid for; containers have limits of their own.
  Value NewString(std::string text);
  Value NewList(List items) { return Checked(Value::FromList(std::move(items))); }
  Value NewIterator(List items) { return Checked(Value::Iterator(std::move(items))); }
  Value NewTuple(List items) { return Checked(Value::Tuple(std::move(items))); }
  Value NewDict(Dict dict) { return Checked(Value::FromDict(std::move(dict))); }
  // As str() does.
  std::string Str(const Value& value) { return ChargeWalk(value) ? value.Str() : ""; }
  // What a loop over `value` goes through; fails for what cannot be iterated.
  List Items(const Value& value, int line);
  Value GetAttribute(const Value& base, absl::string_view name, int line);
  Value GetItem(const Value& base, const Value& key, int line);
  bool Contains(const Value& container, const Value& item, int line);
  // -1, 0, 1.
  int Order(const Value& a, const Value& b, int line);

 private:
  struct Scope {
    const Scope* parent;
    absl::flat_hash_map<std::string, Value> names;
  };
  enum class Flow { kNext, kBreak, kContinue };

  Value Checked(Value container);
  Flow Execute(const Body& body);
  Flow ExecuteOne(const Stmt& statement);
  Flow ExecuteIf(const Stmt& statement);
  void ExecuteFor(const Stmt& loop);
  void ExecuteSet(const Stmt& set);
  void Assign(const std::vector<std::string>& targets, const Value& value, int line);
  std::string Capture(const Body& body);
  void Write(absl::string_view text);
  void Write(const Value& value);

  Value Eval(const Expr& expr);
  Value EvalName(const Expr& expr);
  Value EvalDict(const Expr& expr);
  Value EvalSlice(const Expr& expr);
  Value EvalCall(const Expr& expr);
  Value EvalArithmetic(const Expr& expr);
  Value Repeat(const std::string& unit, int64_t n_times);
  Value EvalConcat(const Expr& expr);
  Value EvalCompare(const Expr& expr);
  bool Compare(absl::string_view op, const Value& left, const Value& right, int line);
  Value Negate(const Value& value, int line);
  List EvalAll(const std::vector<ExprPtr>& operands, size_t from);
  Call EvalArguments(const Expr& expr);
  Value CallMacro(const Macro& macro, const Call& call);

  const absl::Time now_;
  absl::Status status_;
  size_t steps_ = 0;
  int macro_depth_ = 0;
  Scope root_{nullptr, {}};
  Scope* scope_ = &root_;
  std::string* out_ = nullptr;
};

// In files of their own; each reports names that it does not know as unsupported.
Value ApplyFilter(Interpreter* in, const Call& call, const Value& input);
bool ApplyTest(Interpreter* in, const Call& call, const Value& input);
Value CallMethod(Interpreter* in, const Call& call, const Value& object);
Value CallFunction(Interpreter* in, const Call& call);
// Methods that a mapping has: they hide keys of the same name.
bool IsDictMethod(absl::string_view name);

}  // namespace gatefold::jinja

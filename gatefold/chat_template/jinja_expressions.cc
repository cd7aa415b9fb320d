// Expressions of the interpreter.

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/utf8.h"
#include "gatefold/chat_template/jinja_interpreter.h"

namespace gatefold::jinja {

using VKind = Value::Kind;

Value Interpreter::Eval(const Expr& expr) {
  if (!Charge(0)) return Value();
  const auto operand = [&](size_t i) { return Eval(*expr.operands[i]); };
  switch (expr.kind) {
    case Expr::Kind::kConstant:
      return expr.constant;
    case Expr::Kind::kName:
      return EvalName(expr);
    case Expr::Kind::kList:
      return NewList(EvalAll(expr.operands, 0));
    case Expr::Kind::kTuple:
      return NewTuple(EvalAll(expr.operands, 0));
    case Expr::Kind::kDict:
      return EvalDict(expr);
    case Expr::Kind::kAttribute:
      return GetAttribute(operand(0), expr.name, expr.line);
    case Expr::Kind::kSubscript: {
      const Value base = operand(0);
      return GetItem(base, operand(1), expr.line);
    }
    case Expr::Kind::kSlice:
      return EvalSlice(expr);
    case Expr::Kind::kCall:
      return EvalCall(expr);
    case Expr::Kind::kFilter: {
      const Value input = operand(0);
      const Call call = EvalArguments(expr);
      return ok() ? ApplyFilter(this, call, input) : Value();
    }
    case Expr::Kind::kTest: {
      const Value input = operand(0);
      const Call call = EvalArguments(expr);
      return Value::Bool(ok() && ApplyTest(this, call, input));
    }
    case Expr::Kind::kNot:
      return Value::Bool(!operand(0).Truthy());
    case Expr::Kind::kNegate:
      return Negate(operand(0), expr.line);
    case Expr::Kind::kPlus: {
      Value value = operand(0);
      return value.is_number() ? value
                               : Fail(expr.line, absl::StrCat("+ before ", value.KindName()));
    }
    case Expr::Kind::kArithmetic:
      return EvalArithmetic(expr);
    case Expr::Kind::kConcat:
      return EvalConcat(expr);
    case Expr::Kind::kCompare:
      return EvalCompare(expr);
    case Expr::Kind::kAnd: {
      Value left = operand(0);
      return left.Truthy() ? operand(1) : left;
    }
    case Expr::Kind::kOr: {
      Value left = operand(0);
      return left.Truthy() ? left : operand(1);
    }
    case Expr::Kind::kConditional:
      if (operand(1).Truthy()) return operand(0);
      return expr.operands[2] != nullptr ? operand(2) : Value::Undefined("the missing else");
  }
  return Value();
}

Value Interpreter::EvalName(const Expr& expr) {
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    const auto it = scope->names.find(expr.name);
    if (it != scope->names.end()) return it->second;
  }
  return Value::Undefined(expr.name);
}

List Interpreter::EvalAll(const std::vector<ExprPtr>& operands, size_t from) {
  List values;
  for (size_t i = from; i < operands.size() && ok(); ++i) values.push_back(Eval(*operands[i]));
  return values;
}

Value Interpreter::EvalDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.operands.size() && ok(); i += 2) {
    const Value key = Eval(*expr.operands[i]);
    if (!key.Is(VKind::kString)) {
      return Unsupported(expr.line, absl::StrCat(key.KindName(), " as the key of a mapping"));
    }
    dict.Set(key.string(), Eval(*expr.operands[i + 1]));
  }
  return NewDict(std::move(dict));
}

Value Interpreter::GetAttribute(const Value& base, absl::string_view name, int line) {
  if (base.Is(VKind::kUndefined)) {
    return Fail(line, absl::StrCat("'", base.string(), "' is undefined, so it has no ", name));
  }
  if (base.Is(VKind::kDict) && IsDictMethod(name)) return Value::Function(name);
  if (base.is_dict()) {
    if (!Charge(base.dict().items.size())) return Value();
    const Value* value = base.dict().Find(name);
    if (value != nullptr) return *value;
  }
  return Value::Undefined(name);
}

namespace {

// Byte offset of character `index` of `text`, or of its end.
size_t OffsetOf(absl::string_view text, int64_t index) {
  size_t offset = 0;
  while (index-- > 0 && offset < text.size()) NextCodePoint(text, &offset);
  return offset;
}

}  // namespace

Value Interpreter::GetItem(const Value& base, const Value& key, int line) {
  if (base.Is(VKind::kUndefined)) {
    return Fail(line, absl::StrCat("'", base.string(), "' is undefined, so it has no items"));
  }
  if (key.Is(VKind::kString)) {
    if (base.is_dict()) {
      if (!Charge(base.dict().items.size())) return Value();
      const Value* value = base.dict().Find(key.string());
      if (value != nullptr) return *value;
    }
    return base.Is(VKind::kDict) ? Value::Undefined(key.string())
                                 : GetAttribute(base, key.string(), line);
  }
  if (!key.is_integer() || !(base.is_list() || base.Is(VKind::kString))) {
    return Value::Undefined("an item");
  }
  const int64_t length = base.Length();
  const int64_t index = key.integer() < 0 ? key.integer() + length : key.integer();
  if (index < 0 || index >= length) return Value::Undefined("an item past the end");
  if (base.is_list()) return base.list()[index];
  if (!Charge(base.string().size())) return Value();
  const size_t begin = OffsetOf(base.string(), index);
  size_t end = begin;
  NextCodePoint(base.string(), &end);
  return NewString(base.string().substr(begin, end - begin));
}

Value Interpreter::EvalSlice(const Expr& expr) {
  const Value base = Eval(*expr.operands[0]);
  if (base.Is(VKind::kUndefined)) {
    return Fail(expr.line, absl::StrCat("'", base.string(), "' is undefined, so it has no items"));
  }
  if (!base.is_list() && !base.Is(VKind::kString)) {
    return Fail(expr.line, absl::StrCat(base.KindName(), " cannot be sliced"));
  }
  const int64_t length = base.Length();
  int64_t bounds[3];
  bool given[3];
  for (int i = 0; i < 3; ++i) {
    const ExprPtr& operand = expr.operands[i + 1];
    const Value bound = operand == nullptr ? Value::None() : Eval(*operand);
    given[i] = !bound.Is(VKind::kNone);
    if (given[i] && !bound.is_integer()) return Fail(expr.line, "a slice's bound is no integer");
    bounds[i] = given[i] ? bound.integer() : 1;
  }
  const int64_t step = bounds[2];
  if (step == 0) return Fail(expr.line, "a slice's step is 0");
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
  const auto clamp = [&](int64_t bound) {
    return std::clamp(bound < 0 ? bound + length : bound, low, high);
  };
  const int64_t begin = given[0] ? clamp(bounds[0]) : step > 0 ? low : high;
  const int64_t end = given[1] ? clamp(bounds[1]) : step > 0 ? high : low;
  if (base.Is(VKind::kString) && step == 1) {
    if (!Charge(base.string().size())) return Value();
    const size_t from = OffsetOf(base.string(), begin), to = OffsetOf(base.string(), end);
    return NewString(from < to ? base.string().substr(from, to - from) : "");
  }
  const List all = base.is_list() ? base.list() : Items(base, expr.line);
  if (!ChargeItems(all.size())) return Value();
  List picked;
  // Steps may be huge, so the distance is counted, not the sum.
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : -static_cast<uint64_t>(step);
  const int64_t distance = step > 0 ? end - begin : begin - end;
  for (uint64_t gone = 0; distance > 0 && gone < static_cast<uint64_t>(distance);) {
    picked.push_back(all[step > 0 ? begin + gone : begin - gone]);
    if (stride > static_cast<uint64_t>(distance)) break;
    gone += stride;
  }
  if (base.is_list()) {
    return base.Is(VKind::kTuple) ? NewTuple(std::move(picked)) : NewList(std::move(picked));
  }
  std::string text;
  for (const Value& character : picked) text += character.string();
  return NewString(std::move(text));
}

Call Interpreter::EvalArguments(const Expr& expr) {
  Call call{expr.line, expr.name, EvalAll(expr.operands, 1), {}};
  for (const auto& [name, value] : expr.named) call.named.emplace_back(name, Eval(*value));
  return call;
}

Value Interpreter::EvalCall(const Expr& expr) {
  const Expr& callee = *expr.operands[0];
  if (callee.kind == Expr::Kind::kAttribute) {
    const Value object = Eval(*callee.operands[0]);
    Call call = EvalArguments(expr);
    call.name = callee.name;
    if (!ok()) return Value();
    const Value* member = object.is_dict() ? object.dict().Find(callee.name) : nullptr;
    if (member != nullptr && member->Is(VKind::kMacro)) return CallMacro(*member->macro(), call);
    if (object.Is(VKind::kUndefined)) return GetAttribute(object, callee.name, expr.line);
    return CallMethod(this, call, object);
  }
  const Value function = Eval(callee);
  Call call = EvalArguments(expr);
  if (!ok()) return Value();
  if (function.Is(VKind::kMacro)) return CallMacro(*function.macro(), call);
  if (function.Is(VKind::kFunction)) {
    call.name = function.string();
    return CallFunction(this, call);
  }
  if (function.Is(VKind::kUndefined)) {
    return Unsupported(expr.line, absl::StrCat("the function ", function.string()));
  }
  return Fail(expr.line, absl::StrCat(function.KindName(), " cannot be called"));
}

Value Interpreter::Negate(const Value& value, int line) {
  if (value.Is(VKind::kFloat)) return Value::Float(-value.number());
  if (!value.is_integer() || value.integer() == INT64_MIN) {
    return Fail(line, absl::StrCat("- before ", value.KindName()));
  }
  return Value::Int(-value.integer());
}

namespace {

enum class Math { kDone, kOverflow, kByZero };

// Python's: // and % round towards minus infinity.
Math IntegerMath(char op, int64_t a, int64_t b, int64_t* result) {
  const auto check = [](bool overflows) { return overflows ? Math::kOverflow : Math::kDone; };
  switch (op) {
    case '+':
      return check(__builtin_add_overflow(a, b, result));
    case '-':
      return check(__builtin_sub_overflow(a, b, result));
    case '*':
      return check(__builtin_mul_overflow(a, b, result));
    default:
      break;
  }
  if (b == 0) return Math::kByZero;
  if (b == -1) {
    *result = 0;
    return op == '%' ? Math::kDone : check(__builtin_sub_overflow(int64_t{0}, a, result));
  }
  int64_t quotient = a / b, remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    --quotient;
    remainder += b;
  }
  *result = op == '%' ? remainder : quotient;
  return Math::kDone;
}

double FloatMath(absl::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "/") return a / b;
  const double floored = std::floor(a / b);
  return op == "//" ? floored : a - floored * b;
}

}  // namespace

Value Interpreter::Repeat(const std::string& unit, int64_t n_times) {
  std::string text;
  for (int64_t i = 0; i < n_times && Charge(unit.size()); ++i) text += unit;
  return NewString(std::move(text));
}

Value Interpreter::EvalArithmetic(const Expr& expr) {
  const Value left = Eval(*expr.operands[0]);
  const Value right = Eval(*expr.operands[1]);
  if (!ok()) return Value();
  const std::string& op = expr.name;
  if (left.is_number() && right.is_number()) {
    const bool divides = op == "/" || op == "//" || op == "%";
    if (divides && right.number() == 0) return Fail(expr.line, "division by zero");
    if (!left.is_integer() || !right.is_integer() || op == "/") {
      return Value::Float(FloatMath(op, left.number(), right.number()));
    }
    int64_t result = 0;
    if (IntegerMath(op[0], left.integer(), right.integer(), &result) != Math::kDone) {
      return Fail(expr.line, absl::StrCat("the result of ", op, " is out of range"));
    }
    return Value::Int(result);
  }
  if (op == "+" && left.Is(VKind::kString) && right.Is(VKind::kString)) {
    return NewString(absl::StrCat(left.string(), right.string()));
  }
  if (op == "+" && left.is_list() && left.kind() == right.kind()) {
    if (!ChargeItems(left.list().size() + right.list().size())) return Value();
    List items = left.list();
    items.insert(items.end(), right.list().begin(), right.list().end());
    return left.Is(VKind::kTuple) ? NewTuple(std::move(items)) : NewList(std::move(items));
  }
  if (op == "*" && left.Is(VKind::kString) && right.is_integer()) {
    return Repeat(left.string(), right.integer());
  }
  if (op == "*" && left.is_integer() && right.Is(VKind::kString)) {
    return Repeat(right.string(), left.integer());
  }
  if (op == "%" && left.Is(VKind::kString)) return Unsupported(expr.line, "% on a string");
  return Fail(expr.line, absl::StrCat(left.KindName(), " ", op, " ", right.KindName()));
}

Value Interpreter::EvalConcat(const Expr& expr) {
  std::string text;
  for (const ExprPtr& operand : expr.operands) {
    text += Str(Eval(*operand));
    if (!Charge(text.size())) return Value();
  }
  return Value::String(std::move(text));
}

Value Interpreter::EvalCompare(const Expr& expr) {
  Value left = Eval(*expr.operands[0]);
  for (size_t i = 0; i < expr.names.size() && ok(); ++i) {
    Value right = Eval(*expr.operands[i + 1]);
    if (!ok() || !Compare(expr.names[i], left, right, expr.line)) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(ok());
}

bool Interpreter::Compare(absl::string_view op, const Value& left, const Value& right, int line) {
  if (op == "in") return Contains(right, left, line);
  if (op == "not in") return !Contains(right, left, line);
  if (op == "==" || op == "!=") {
    if (!ChargeWalk(left)) return false;
    return left.Equals(right) == (op == "==");
  }
  const int order = Order(left, right, line);
  if (op == "<") return order < 0;
  if (op == "<=") return order <= 0;
  if (op == ">") return order > 0;
  return order >= 0;
}

int Interpreter::Order(const Value& a, const Value& b, int line) {
  if (a.is_integer() && b.is_integer())
    return (a.integer() > b.integer()) - (a.integer() < b.integer());
  if (a.is_number() && b.is_number()) return (a.number() > b.number()) - (a.number() < b.number());
  if (a.Is(VKind::kString) && b.Is(VKind::kString)) {
    Charge(std::min(a.string().size(), b.string().size()));
    const int order = a.string().compare(b.string());
    return (order > 0) - (order < 0);
  }
  if (a.is_list() && a.kind() == b.kind()) {
    for (size_t i = 0; i < std::min(a.list().size(), b.list().size()) && Charge(0); ++i) {
      if (!a.list()[i].Equals(b.list()[i])) return Order(a.list()[i], b.list()[i], line);
    }
    return (a.list().size() > b.list().size()) - (a.list().size() < b.list().size());
  }
  Fail(line, absl::StrCat(a.KindName(), " and ", b.KindName(), " have no order"));
  return 0;
}

bool Interpreter::Contains(const Value& container, const Value& item, int line) {
  switch (container.kind()) {
    case VKind::kUndefined:
      return false;
    case VKind::kString:
      if (!item.Is(VKind::kString)) {
        Fail(line, absl::StrCat(item.KindName(), " in a string"));
        return false;
      }
      Charge(container.string().size());
      return container.string().find(item.string()) != std::string::npos;
    case VKind::kList:
    case VKind::kTuple:
      if (!ChargeWalk(container)) return false;
      return std::any_of(container.list().begin(), container.list().end(),
                         [&](const Value& candidate) { return candidate.Equals(item); });
    case VKind::kDict:
      ChargeItems(container.dict().items.size());
      return item.Is(VKind::kString) && container.dict().Find(item.string()) != nullptr;
    default:
      Fail(line, absl::StrCat("in ", container.KindName()));
      return false;
  }
}

List Interpreter::Items(const Value& value, int line) {
  List items;
  switch (value.kind()) {
    case VKind::kUndefined:
      break;
    case VKind::kList:
    case VKind::kTuple:
      if (ChargeItems(value.list().size())) items = value.list();
      break;
    case VKind::kDict:
      if (!ChargeItems(value.dict().items.size())) break;
      for (const auto& [key, item] : value.dict().items) items.push_back(Value::String(key));
      break;
    case VKind::kString: {
      const std::string& text = value.string();
      if (!ChargeItems(text.size())) break;
      for (size_t i = 0; i < text.size();) {
        const size_t begin = i;
        NextCodePoint(text, &i);
        items.push_back(Value::String(text.substr(begin, i - begin)));
      }
      break;
    }
    default:
      Fail(line, absl::StrCat(value.KindName(), " cannot be iterated"));
  }
  return items;
}

}  // namespace gatefold::jinja

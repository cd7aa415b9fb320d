// Statements, scopes and limits of the interpreter. Expressions are in jinja_expressions.cc.

#include "gatefold/chat_template/jinja_interpreter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gatefold/base/errors.h"

namespace gatefold::jinja {
namespace {

constexpr size_t kMaxSteps = 10'000'000;
constexpr size_t kBytesPerStep = 32;
constexpr size_t kMaxOutputBytes = size_t{32} << 20;
constexpr int kMaxMacroDepth = 40;
constexpr int kMaxValueDepth = 200;

}  // namespace

const Value* Call::Find(size_t index, absl::string_view key) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [name, value] : named) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Interpreter::SetGlobal(absl::string_view name, Value value) {
  root_.names.insert_or_assign(std::string(name), std::move(value));
}

absl::StatusOr<std::string> Interpreter::Run(const Template& parsed) {
  for (const char* name : {"range", "dict", "namespace", "raise_exception", "strftime_now"}) {
    root_.names.try_emplace(name, Value::Function(name));
  }
  std::string text = Capture(parsed.body);
  if (!ok()) return status_;
  return text;
}

Value Interpreter::Fail(int line, absl::string_view what) {
  if (ok()) status_ = absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", what));
  return Value();
}

Value Interpreter::Unsupported(int line, absl::string_view what) {
  if (ok()) status_ = FeatureUnsupported(absl::StrCat("line ", line, ": ", what));
  return Value();
}

Value Interpreter::Raise(absl::string_view message) {
  if (ok()) status_ = absl::InvalidArgumentError(message);
  return Value();
}

bool Interpreter::Takes(const Call& call, absl::string_view parameters) {
  const std::vector<absl::string_view> known = absl::StrSplit(parameters, ' ', absl::SkipEmpty());
  if (call.positional.size() > known.size()) {
    Unsupported(call.line, absl::StrCat("argument ", known.size() + 1, " of ", call.name));
  }
  for (const auto& argument : call.named) {
    if (std::find(known.begin(), known.end(), argument.first) != known.end()) continue;
    Unsupported(call.line, absl::StrCat("argument ", argument.first, " of ", call.name));
  }
  return ok();
}

bool Interpreter::Charge(size_t n_bytes) {
  steps_ += 1 + n_bytes / kBytesPerStep;
  if (steps_ > kMaxSteps && ok()) {
    status_ = absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxSteps, " steps"));
  }
  return ok();
}

bool Interpreter::ChargeWalk(const Value& value) {
  // What is too heavy to walk through is past the limit anyway.
  return Charge(std::min<uint64_t>(value.weight(), kMaxSteps) * kBytesPerStep);
}

// Containers can hold one another many times, and be nested in a loop.
Value Interpreter::Checked(Value container) {
  if (container.depth() > kMaxValueDepth) {
    if (ok()) status_ = absl::ResourceExhaustedError("values are nested too deeply");
    return Value();
  }
  const size_t n_items =
      container.is_list() ? container.list().size() : container.dict().items.size();
  return ChargeItems(n_items) ? std::move(container) : Value();
}

Value Interpreter::NewString(std::string text) {
  if (!Charge(text.size())) return Value();
  return Value::String(std::move(text));
}

void Interpreter::Write(absl::string_view text) {
  if (!Charge(text.size())) return;
  if (out_->size() + text.size() > kMaxOutputBytes) {
    status_ =
        absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxOutputBytes, " bytes of text"));
    return;
  }
  out_->append(text.data(), text.size());
}

void Interpreter::Write(const Value& value) {
  if (value.Is(Value::Kind::kString)) {
    Write(absl::string_view(value.string()));
  } else {
    Write(absl::string_view(Str(value)));
  }
}

std::string Interpreter::Capture(const Body& body) {
  std::string text;
  std::string* const outer = std::exchange(out_, &text);
  Execute(body);
  out_ = outer;
  return text;
}

Interpreter::Flow Interpreter::Execute(const Body& body) {
  for (const auto& statement : body) {
    if (!Charge(0)) return Flow::kBreak;
    const Flow flow = ExecuteOne(*statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteOne(const Stmt& statement) {
  switch (statement.kind) {
    case Stmt::Kind::kText:
      Write(absl::string_view(statement.text));
      break;
    case Stmt::Kind::kOutput:
      Write(Eval(*statement.expr));
      break;
    case Stmt::Kind::kIf:
      return ExecuteIf(statement);
    case Stmt::Kind::kFor:
      ExecuteFor(statement);
      break;
    case Stmt::Kind::kSet:
      ExecuteSet(statement);
      break;
    case Stmt::Kind::kSetBlock: {
      Scope scope{scope_, {}};
      scope_ = &scope;
      std::string text = Capture(statement.body);
      scope_ = const_cast<Scope*>(scope.parent);
      Assign(statement.targets, NewString(std::move(text)), statement.line);
      break;
    }
    case Stmt::Kind::kMacro:
      Assign({statement.macro->name}, Value::FromMacro(statement.macro.get()), statement.line);
      break;
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::ExecuteIf(const Stmt& statement) {
  for (const Stmt::Branch& branch : statement.branches) {
    if (branch.condition == nullptr || Eval(*branch.condition).Truthy()) {
      return ok() ? Execute(branch.body) : Flow::kBreak;
    }
  }
  return Flow::kNext;
}

namespace {

// The variable `loop` of one round.
Value LoopVariable(const List& items, size_t index, int depth) {
  const auto n = static_cast<int64_t>(items.size());
  const auto i = static_cast<int64_t>(index);
  Dict loop;
  loop.items.reserve(11);
  loop.items.emplace_back("index", Value::Int(i + 1));
  loop.items.emplace_back("index0", Value::Int(i));
  loop.items.emplace_back("first", Value::Bool(i == 0));
  loop.items.emplace_back("last", Value::Bool(i + 1 == n));
  loop.items.emplace_back("length", Value::Int(n));
  loop.items.emplace_back("revindex", Value::Int(n - i));
  loop.items.emplace_back("revindex0", Value::Int(n - i - 1));
  loop.items.emplace_back("depth", Value::Int(depth));
  loop.items.emplace_back("depth0", Value::Int(depth - 1));
  loop.items.emplace_back("previtem", index > 0 ? items[index - 1] : Value::Undefined("previtem"));
  loop.items.emplace_back(
      "nextitem", index + 1 < items.size() ? items[index + 1] : Value::Undefined("nextitem"));
  return Value::FromDict(std::move(loop));
}

}  // namespace

void Interpreter::ExecuteFor(const Stmt& loop) {
  List items = Items(Eval(*loop.expr), loop.line);
  Scope* const outer = scope_;
  if (loop.filter != nullptr) {
    List kept;
    for (Value& item : items) {
      Scope scope{outer, {}};
      scope_ = &scope;
      Assign(loop.targets, item, loop.line);
      if (Eval(*loop.filter).Truthy()) kept.push_back(std::move(item));
      if (!ok()) break;
    }
    scope_ = outer;
    items = std::move(kept);
  }
  // Jinja's `else` is for loops of which no round came to its end, be there items or not.
  bool ended_a_round = false;
  for (size_t i = 0; i < items.size() && Charge(0); ++i) {
    Scope scope{outer, {}};
    scope_ = &scope;
    Assign(loop.targets, items[i], loop.line);
    scope.names.insert_or_assign("loop", LoopVariable(items, i, 1));
    const Flow flow = Execute(loop.body);
    ended_a_round = ended_a_round || flow == Flow::kNext;
    if (flow == Flow::kBreak) break;
  }
  scope_ = outer;
  if (!ended_a_round && ok()) {
    Scope scope{outer, {}};
    scope_ = &scope;
    Execute(loop.else_body);
    scope_ = outer;
  }
}

void Interpreter::ExecuteSet(const Stmt& set) {
  Value value = Eval(*set.expr);
  if (!ok()) return;
  if (set.attribute.empty()) return Assign(set.targets, value, set.line);
  for (const Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    const auto it = scope->names.find(set.targets[0]);
    if (it == scope->names.end()) continue;
    if (!it->second.Is(Value::Kind::kNamespace)) break;
    if (!ChargeWalk(value)) return;
    if (value.HoldsNamespace()) {
      Unsupported(set.line, "a namespace within a namespace");
      return;
    }
    it->second.mutable_dict().Set(set.attribute, std::move(value));
    return;
  }
  Fail(set.line, absl::StrCat("'", set.targets[0], "' is not a namespace"));
}

void Interpreter::Assign(const std::vector<std::string>& targets, const Value& value, int line) {
  if (!ok()) return;
  if (targets.size() == 1) {
    scope_->names.insert_or_assign(targets[0], value);
    return;
  }
  const List items = Items(value, line);
  if (ok() && items.size() != targets.size()) {
    Fail(line, absl::StrCat(items.size(), " values for ", targets.size(), " names"));
  }
  for (size_t i = 0; ok() && i < targets.size(); ++i) {
    scope_->names.insert_or_assign(targets[i], items[i]);
  }
}

// Names that a macro does not define are those of the template, not of the caller.
Value Interpreter::CallMacro(const Macro& macro, const Call& call) {
  if (macro_depth_ >= kMaxMacroDepth) return Fail(call.line, "macros call each other too deeply");
  if (call.positional.size() > macro.parameters.size()) {
    return Fail(call.line, absl::StrCat("macro ", macro.name, " takes ", macro.parameters.size(),
                                        " arguments, not ", call.positional.size()));
  }
  for (const auto& argument : call.named) {
    const absl::string_view name = argument.first;
    const bool known = std::any_of(macro.parameters.begin(), macro.parameters.end(),
                                   [&](const auto& parameter) { return parameter.first == name; });
    if (!known) {
      return Fail(call.line, absl::StrCat("macro ", macro.name, " has no argument ", name));
    }
  }
  Scope* const outer = scope_;
  Scope scope{&root_, {}};
  scope_ = &scope;
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const auto& [name, fallback] = macro.parameters[i];
    const Value* given = call.Find(i, name);
    Value value = given != nullptr      ? *given
                  : fallback != nullptr ? Eval(*fallback)
                                        : Value::Undefined(name);
    scope.names.insert_or_assign(name, std::move(value));
  }
  ++macro_depth_;
  std::string text = ok() ? Capture(macro.body) : "";
  --macro_depth_;
  scope_ = outer;
  return NewString(std::move(text));
}

}  // namespace gatefold::jinja

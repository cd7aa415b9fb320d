#include "gatefold/chat_template/jinja_expression_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"

namespace gatefold::jinja {
namespace {

using Kind = Expr::Kind;

// Trees are walked by recursion.
constexpr int kMaxDepth = 200;

}  // namespace

const Token& ExpressionParser::Peek(size_t ahead) const {
  return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
}

const Token& ExpressionParser::Next() {
  const Token& token = Peek();
  if (at_ + 1 < tokens_.size()) ++at_;
  return token;
}

bool ExpressionParser::AtOperator(absl::string_view op) const {
  return Peek().kind == Token::Kind::kOperator && Peek().text == op;
}
bool ExpressionParser::AtName(absl::string_view name) const {
  return Peek().kind == Token::Kind::kName && Peek().text == name;
}
bool ExpressionParser::SkipOperator(absl::string_view op) {
  if (!AtOperator(op)) return false;
  Next();
  return true;
}
bool ExpressionParser::SkipName(absl::string_view name) {
  if (!AtName(name)) return false;
  Next();
  return true;
}
void ExpressionParser::ExpectOperator(absl::string_view op) {
  if (!SkipOperator(op)) Fail(absl::StrCat("expected '", op, "'"));
}
void ExpressionParser::ExpectName(absl::string_view name) {
  if (!SkipName(name)) Fail(absl::StrCat("expected '", name, "'"));
}
void ExpressionParser::Expect(Token::Kind kind, absl::string_view what) {
  if (Peek().kind != kind) return Fail(absl::StrCat("expected ", what));
  Next();
}
std::string ExpressionParser::ExpectIdentifier() {
  if (Peek().kind == Token::Kind::kName) return Next().text;
  Fail("expected a name");
  return "";
}

void ExpressionParser::FailAt(int line, absl::string_view what) {
  if (ok()) status_ = absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", what));
  at_ = tokens_.size() - 1;
}

void ExpressionParser::Fail(absl::string_view what) {
  const Token& token = Peek();
  std::string found;
  if (!token.text.empty()) found = absl::StrCat(" at '", token.text.substr(0, 40), "'");
  FailAt(token.line, absl::StrCat(what, found));
}

void ExpressionParser::Unsupported(absl::string_view what) {
  if (ok()) status_ = FeatureUnsupported(absl::StrCat("line ", Peek().line, ": ", what));
  at_ = tokens_.size() - 1;
}

std::unique_ptr<Expr> ExpressionParser::Make(Kind kind) {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = Peek().line;
  return expr;
}

ExprPtr ExpressionParser::Finish(std::unique_ptr<Expr> expr) {
  for (const ExprPtr& operand : expr->operands) {
    if (operand != nullptr) expr->depth = std::max(expr->depth, operand->depth + 1);
  }
  for (const auto& [name, operand] : expr->named) {
    if (operand != nullptr) expr->depth = std::max(expr->depth, operand->depth + 1);
  }
  if (expr->depth > kMaxDepth) FailAt(expr->line, "an expression is nested too deeply");
  return ok() ? ExprPtr(std::move(expr)) : nullptr;
}

ExprPtr ExpressionParser::TupleExpression(bool with_conditional) {
  const auto item = [&] { return with_conditional ? Conditional() : Or(); };
  auto tuple = Make(Kind::kTuple);
  ExprPtr first = item();
  if (!AtOperator(",")) return first;
  tuple->operands.push_back(std::move(first));
  while (ok() && SkipOperator(",")) {
    const Token::Kind next = Peek().kind;
    if (next == Token::Kind::kBlockEnd || next == Token::Kind::kOutputEnd || AtOperator(")")) break;
    tuple->operands.push_back(item());
  }
  return Finish(std::move(tuple));
}

ExprPtr ExpressionParser::Conditional() {
  if (++nesting_ > kMaxDepth) Fail("expressions are nested too deeply");
  ExprPtr value = ok() ? Or() : nullptr;
  while (ok() && AtName("if")) {
    auto conditional = Make(Kind::kConditional);
    Next();
    conditional->operands.push_back(std::move(value));
    conditional->operands.push_back(Or());
    conditional->operands.push_back(SkipName("else") ? Conditional() : nullptr);
    value = Finish(std::move(conditional));
  }
  --nesting_;
  return value;
}

ExprPtr ExpressionParser::Or() {
  ExprPtr left = And();
  while (ok() && AtName("or")) {
    auto node = Make(Kind::kOr);
    Next();
    node->operands.push_back(std::move(left));
    node->operands.push_back(And());
    left = Finish(std::move(node));
  }
  return left;
}

ExprPtr ExpressionParser::And() {
  ExprPtr left = Not();
  while (ok() && AtName("and")) {
    auto node = Make(Kind::kAnd);
    Next();
    node->operands.push_back(std::move(left));
    node->operands.push_back(Not());
    left = Finish(std::move(node));
  }
  return left;
}

ExprPtr ExpressionParser::Not() {
  if (!AtName("not")) return Compare();
  if (++nesting_ > kMaxDepth) Fail("expressions are nested too deeply");
  auto node = Make(Kind::kNot);
  Next();
  node->operands.push_back(ok() ? Not() : nullptr);
  --nesting_;
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Compare() {
  auto node = Make(Kind::kCompare);
  node->operands.push_back(Sum());
  while (ok()) {
    const Token& token = Peek();
    std::string op;
    if (token.kind == Token::Kind::kOperator) {
      for (const char* candidate : {"==", "!=", "<=", ">=", "<", ">"}) {
        if (token.text == candidate) op = candidate;
      }
    } else if (AtName("in")) {
      op = "in";
    } else if (AtName("not") && Peek(1).kind == Token::Kind::kName && Peek(1).text == "in") {
      op = "not in";
      Next();
    }
    if (op.empty()) break;
    Next();
    node->names.push_back(op);
    node->operands.push_back(Sum());
  }
  if (node->names.empty()) return std::move(node->operands[0]);
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Sum() {
  ExprPtr left = Concat();
  while (ok() && (AtOperator("+") || AtOperator("-"))) {
    auto node = Make(Kind::kArithmetic);
    node->name = Next().text;
    node->operands.push_back(std::move(left));
    node->operands.push_back(Concat());
    left = Finish(std::move(node));
  }
  return left;
}

ExprPtr ExpressionParser::Concat() {
  auto node = Make(Kind::kConcat);
  node->operands.push_back(Product());
  while (ok() && SkipOperator("~")) node->operands.push_back(Product());
  if (node->operands.size() == 1) return std::move(node->operands[0]);
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Product() {
  ExprPtr left = Power();
  while (ok() && (AtOperator("*") || AtOperator("/") || AtOperator("//") || AtOperator("%"))) {
    auto node = Make(Kind::kArithmetic);
    node->name = Next().text;
    node->operands.push_back(std::move(left));
    node->operands.push_back(Power());
    left = Finish(std::move(node));
  }
  return left;
}

ExprPtr ExpressionParser::Power() {
  ExprPtr base = Unary(/*with_filters=*/true);
  if (AtOperator("**")) Unsupported("the operator **");
  return base;
}

ExprPtr ExpressionParser::Unary(bool with_filters) {
  if (AtOperator("-") || AtOperator("+")) {
    if (++nesting_ > kMaxDepth) Fail("expressions are nested too deeply");
    auto node = Make(AtOperator("-") ? Kind::kNegate : Kind::kPlus);
    Next();
    node->operands.push_back(ok() ? Unary(/*with_filters=*/false) : nullptr);
    --nesting_;
    ExprPtr result = Finish(std::move(node));
    return with_filters ? Filters(Postfix(std::move(result))) : Postfix(std::move(result));
  }
  ExprPtr value = Postfix(Primary());
  return with_filters ? Filters(std::move(value)) : std::move(value);
}

ExprPtr ExpressionParser::Primary() {
  switch (Peek().kind) {
    case Token::Kind::kName:
      return NameOrConstant();
    case Token::Kind::kInteger:
    case Token::Kind::kFloat:
      return Number();
    case Token::Kind::kString: {
      auto node = Make(Kind::kConstant);
      std::string text;
      while (Peek().kind == Token::Kind::kString) text += Next().text;
      node->constant = Value::String(std::move(text));
      return Finish(std::move(node));
    }
    default:
      break;
  }
  if (AtOperator("(")) return Parentheses();
  if (AtOperator("[")) return ListLiteral();
  if (AtOperator("{")) return DictLiteral();
  Fail("expected an expression");
  return nullptr;
}

ExprPtr ExpressionParser::NameOrConstant() {
  auto node = Make(Kind::kConstant);
  const std::string& name = Next().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->constant = Value::Bool(name[0] == 't' || name[0] == 'T');
  } else if (name == "none" || name == "None") {
    node->constant = Value::None();
  } else {
    node->kind = Kind::kName;
    node->name = name;
  }
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Number() {
  auto node = Make(Kind::kConstant);
  const bool is_float = Peek().kind == Token::Kind::kFloat;
  int64_t integer = 0;
  double number = 0;
  if (is_float ? !absl::SimpleAtod(Peek().text, &number)
               : !absl::SimpleAtoi(Peek().text, &integer)) {
    Fail("a number is out of range");
  }
  node->constant = is_float ? Value::Float(number) : Value::Int(integer);
  Next();
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Parentheses() {
  auto empty = Make(Kind::kTuple);
  Next();
  if (SkipOperator(")")) return Finish(std::move(empty));
  ExprPtr inner = TupleExpression();
  ExpectOperator(")");
  return inner;
}

ExprPtr ExpressionParser::ListLiteral() {
  auto node = Make(Kind::kList);
  Next();
  while (ok() && !AtOperator("]")) {
    node->operands.push_back(Conditional());
    if (!AtOperator("]")) ExpectOperator(",");
  }
  ExpectOperator("]");
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::DictLiteral() {
  auto node = Make(Kind::kDict);
  Next();
  while (ok() && !AtOperator("}")) {
    node->operands.push_back(Conditional());
    ExpectOperator(":");
    node->operands.push_back(Conditional());
    if (!AtOperator("}")) ExpectOperator(",");
  }
  ExpectOperator("}");
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Postfix(ExprPtr base) {
  while (ok()) {
    if (AtOperator(".")) {
      base = Attribute(std::move(base));
    } else if (AtOperator("[")) {
      base = Subscript(std::move(base));
    } else if (AtOperator("(")) {
      auto call = Make(Kind::kCall);
      call->operands.push_back(std::move(base));
      Arguments(call.get());
      base = Finish(std::move(call));
    } else {
      break;
    }
  }
  return base;
}

ExprPtr ExpressionParser::Attribute(ExprPtr base) {
  auto node = Make(Kind::kAttribute);
  Next();
  node->operands.push_back(std::move(base));
  if (Peek().kind == Token::Kind::kInteger) {
    node->kind = Kind::kSubscript;
    node->operands.push_back(Number());
  } else {
    node->name = ExpectIdentifier();
  }
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Subscript(ExprPtr base) {
  auto node = Make(Kind::kSubscript);
  Next();
  node->operands.push_back(std::move(base));
  ExprPtr first = AtOperator(":") ? nullptr : Conditional();
  if (!AtOperator(":")) {
    node->operands.push_back(std::move(first));
    ExpectOperator("]");
    return Finish(std::move(node));
  }
  node->kind = Kind::kSlice;
  node->operands.push_back(std::move(first));
  for (int i = 0; i < 2; ++i) {
    const bool is_given = SkipOperator(":") && !AtOperator("]") && !AtOperator(":");
    node->operands.push_back(is_given ? Conditional() : nullptr);
  }
  ExpectOperator("]");
  return Finish(std::move(node));
}

void ExpressionParser::Arguments(Expr* call) {
  ExpectOperator("(");
  while (ok() && !AtOperator(")")) {
    if (AtOperator("*") || AtOperator("**")) return Unsupported("* in a call");
    if (Peek().kind == Token::Kind::kName && Peek(1).kind == Token::Kind::kOperator &&
        Peek(1).text == "=") {
      std::string name = Next().text;
      Next();
      call->named.emplace_back(std::move(name), Conditional());
    } else if (!call->named.empty()) {
      return Fail("an argument without a name follows one with a name");
    } else {
      call->operands.push_back(Conditional());
    }
    if (!AtOperator(")")) ExpectOperator(",");
  }
  ExpectOperator(")");
}

ExprPtr ExpressionParser::Filters(ExprPtr base) {
  while (ok()) {
    if (AtOperator("|")) {
      base = Filter(std::move(base));
    } else if (AtName("is")) {
      base = Test(std::move(base));
    } else if (AtOperator("(")) {
      base = Postfix(std::move(base));
    } else {
      break;
    }
  }
  return base;
}

ExprPtr ExpressionParser::Filter(ExprPtr base) {
  auto node = Make(Kind::kFilter);
  Next();
  node->name = ExpectIdentifier();
  node->operands.push_back(std::move(base));
  if (AtOperator("(")) Arguments(node.get());
  return Finish(std::move(node));
}

ExprPtr ExpressionParser::Test(ExprPtr base) {
  auto node = Make(Kind::kTest);
  Next();
  const bool negated = SkipName("not");
  node->name = ExpectIdentifier();
  node->operands.push_back(std::move(base));
  const Token& next = Peek();
  const bool is_operand = next.kind == Token::Kind::kString || next.kind == Token::Kind::kInteger ||
                          next.kind == Token::Kind::kFloat || AtOperator("[") || AtOperator("{") ||
                          (next.kind == Token::Kind::kName && next.text != "else" &&
                           next.text != "or" && next.text != "and" && next.text != "if" &&
                           next.text != "is" && next.text != "not" && next.text != "in");
  if (AtOperator("(")) {
    Arguments(node.get());
  } else if (is_operand) {
    node->operands.push_back(Postfix(Primary()));
  }
  ExprPtr test = Finish(std::move(node));
  if (!negated) return test;
  auto inverse = Make(Kind::kNot);
  inverse->operands.push_back(std::move(test));
  return Finish(std::move(inverse));
}

}  // namespace gatefold::jinja

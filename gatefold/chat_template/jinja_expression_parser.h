#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gatefold/chat_template/jinja_ast.h"
#include "gatefold/chat_template/jinja_lexer.h"

namespace gatefold::jinja {

// Walks over the tokens of a template and parses expressions. The first error sticks; after it the
// cursor stands at the end and expressions are null.
class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  const Token& Peek(size_t ahead = 0) const;
  const Token& Next();
  bool AtOperator(absl::string_view op) const;
  bool AtName(absl::string_view name) const;
  bool SkipOperator(absl::string_view op);
  bool SkipName(absl::string_view name);
  void ExpectOperator(absl::string_view op);
  void ExpectName(absl::string_view name);
  void Expect(Token::Kind kind, absl::string_view what);
  std::string ExpectIdentifier();
  // InvalidArgument at the line of the token under the cursor.
  void Fail(absl::string_view what);
  void FailAt(int line, absl::string_view what);
  // Unimplemented.
  void Unsupported(absl::string_view what);

  ExprPtr Expression() { return Conditional(); }
  // a, b, c without parentheses is a tuple; `with_conditional` off leaves an `if` alone.
  ExprPtr TupleExpression(bool with_conditional = true);

 private:
  std::unique_ptr<Expr> Make(Expr::Kind kind);
  ExprPtr Finish(std::unique_ptr<Expr> expr);

  ExprPtr Conditional();
  ExprPtr Or();
  ExprPtr And();
  ExprPtr Not();
  ExprPtr Compare();
  ExprPtr Sum();
  ExprPtr Concat();
  ExprPtr Product();
  ExprPtr Power();
  ExprPtr Unary(bool with_filters);
  ExprPtr Primary();
  ExprPtr NameOrConstant();
  ExprPtr Number();
  ExprPtr ListLiteral();
  ExprPtr DictLiteral();
  ExprPtr Parentheses();
  ExprPtr Postfix(ExprPtr base);
  ExprPtr Attribute(ExprPtr base);
  ExprPtr Subscript(ExprPtr base);
  ExprPtr Filters(ExprPtr base);
  ExprPtr Filter(ExprPtr base);
  ExprPtr Test(ExprPtr base);
  void Arguments(Expr* call);

  const std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
  absl::Status status_;
};

}  // namespace gatefold::jinja

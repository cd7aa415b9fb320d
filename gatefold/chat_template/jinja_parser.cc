#include "gatefold/chat_template/jinja_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/chat_template/jinja_expression_parser.h"
#include "gatefold/chat_template/jinja_lexer.h"

namespace gatefold::jinja {
namespace {

using Kind = Stmt::Kind;
using Names = std::vector<absl::string_view>;

// Statements are walked by recursion.
constexpr int kMaxNesting = 100;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : in_(std::move(tokens)) {}

  absl::StatusOr<Template> Run() {
    Template parsed;
    ParseBody({}, &parsed.body);
    GF_RETURN_IF_ERROR(in_.status());
    return parsed;
  }

 private:
  // Statements up to a block that starts with one of `ends`, whose name is consumed and returned;
  // up to the end of the template if there are none.
  std::string ParseBody(const Names& ends, Body* body) {
    if (++nesting_ > kMaxNesting) in_.Fail("statements are nested too deeply");
    std::string end;
    while (in_.ok() && end.empty()) {
      const Token& token = in_.Peek();
      if (token.kind == Token::Kind::kEnd) {
        if (!ends.empty()) in_.Fail(absl::StrCat("the template ends before ", ends.back()));
        break;
      }
      in_.Next();
      if (token.kind == Token::Kind::kText) {
        Make(Kind::kText, token.line, body)->text = token.text;
      } else if (token.kind == Token::Kind::kOutputBegin) {
        Stmt* output = Make(Kind::kOutput, token.line, body);
        output->expr = in_.TupleExpression();
        in_.Expect(Token::Kind::kOutputEnd, "}}");
      } else if (std::find(ends.begin(), ends.end(), in_.Peek().text) != ends.end()) {
        end = in_.Next().text;
      } else {
        ParseStatement(token.line, body);
      }
    }
    --nesting_;
    return end;
  }

  static Stmt* Make(Kind kind, int line, Body* body) {
    auto statement = std::make_unique<Stmt>();
    statement->kind = kind;
    statement->line = line;
    Stmt* made = statement.get();
    body->push_back(std::move(statement));
    return made;
  }

  void EndBlock() { in_.Expect(Token::Kind::kBlockEnd, "%}"); }

  void ParseStatement(int line, Body* body) {
    if (in_.Peek().kind != Token::Kind::kName) return in_.Fail("expected a statement");
    const std::string name = in_.Peek().text;
    if (name == "if") {
      in_.Next();
      ParseIf(Make(Kind::kIf, line, body));
    } else if (name == "for") {
      in_.Next();
      ParseFor(Make(Kind::kFor, line, body));
    } else if (name == "set") {
      in_.Next();
      ParseSet(Make(Kind::kSet, line, body));
    } else if (name == "macro") {
      in_.Next();
      ParseMacro(Make(Kind::kMacro, line, body));
    } else if (name == "break" || name == "continue") {
      in_.Next();
      if (loops_ == 0) in_.FailAt(line, absl::StrCat(name, " outside of a loop"));
      Make(name == "break" ? Kind::kBreak : Kind::kContinue, line, body);
      EndBlock();
    } else if (name == "generation") {
      // Marks what the model says, for training; it renders as what is in it.
      in_.Next();
      EndBlock();
      ParseBody({"endgeneration"}, body);
      EndBlock();
    } else {
      in_.Unsupported(absl::StrCat("the statement ", name));
    }
  }

  void ParseIf(Stmt* statement) {
    std::string end = "if";
    while (in_.ok() && end != "endif") {
      statement->branches.emplace_back();
      Stmt::Branch& branch = statement->branches.back();
      if (end != "else") branch.condition = in_.TupleExpression();
      EndBlock();
      end = end == "else" ? ParseBody({"endif"}, &branch.body)
                          : ParseBody({"elif", "else", "endif"}, &branch.body);
    }
    EndBlock();
  }

  std::vector<std::string> Targets() {
    std::vector<std::string> names;
    const bool in_parentheses = in_.SkipOperator("(");
    do {
      names.push_back(in_.ExpectIdentifier());
    } while (in_.ok() && in_.SkipOperator(","));
    if (in_parentheses) in_.ExpectOperator(")");
    return names;
  }

  void ParseFor(Stmt* loop) {
    loop->targets = Targets();
    in_.ExpectName("in");
    loop->expr = in_.TupleExpression(/*with_conditional=*/false);
    if (in_.SkipName("if")) loop->filter = in_.Expression();
    if (in_.AtName("recursive")) in_.Unsupported("a recursive loop");
    EndBlock();
    ++loops_;
    const std::string end = ParseBody({"else", "endfor"}, &loop->body);
    --loops_;
    if (end == "else") {
      EndBlock();
      ParseBody({"endfor"}, &loop->else_body);
    }
    EndBlock();
  }

  void ParseSet(Stmt* set) {
    set->targets = Targets();
    if (set->targets.size() == 1 && in_.SkipOperator(".")) set->attribute = in_.ExpectIdentifier();
    if (in_.SkipOperator("=")) {
      set->expr = in_.TupleExpression();
      EndBlock();
      return;
    }
    set->kind = Kind::kSetBlock;
    if (in_.AtOperator("|")) in_.Unsupported("a filter on a set block");
    if (set->targets.size() != 1 || !set->attribute.empty()) in_.Fail("expected '='");
    EndBlock();
    ParseBody({"endset"}, &set->body);
    EndBlock();
  }

  void ParseMacro(Stmt* statement) {
    auto macro = std::make_unique<Macro>();
    macro->name = in_.ExpectIdentifier();
    in_.ExpectOperator("(");
    while (in_.ok() && !in_.AtOperator(")")) {
      std::string name = in_.ExpectIdentifier();
      ExprPtr value = in_.SkipOperator("=") ? in_.Expression() : nullptr;
      macro->parameters.emplace_back(std::move(name), std::move(value));
      if (!in_.AtOperator(")")) in_.ExpectOperator(",");
    }
    in_.ExpectOperator(")");
    EndBlock();
    const int outer_loops = std::exchange(loops_, 0);
    ParseBody({"endmacro"}, &macro->body);
    loops_ = outer_loops;
    if (in_.Peek().kind == Token::Kind::kName) in_.Next();  // its name again
    EndBlock();
    statement->macro = std::move(macro);
  }

  ExpressionParser in_;
  int nesting_ = 0;
  int loops_ = 0;
};

}  // namespace

absl::StatusOr<Template> ParseTemplate(absl::string_view source) {
  GF_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace gatefold::jinja

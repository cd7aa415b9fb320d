#pragma once

// What a chat template looks like once it is parsed.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gatefold/chat_template/jinja_value.h"

namespace gatefold::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<const Expr>;
using Body = std::vector<std::unique_ptr<const Stmt>>;

struct Expr {
  enum class Kind {
    kConstant,     // constant
    kName,         // name
    kList,         // operands
    kTuple,        // operands
    kDict,         // operands: key, value, key, value ...
    kAttribute,    // operands[0].name
    kSubscript,    // operands[0][operands[1]]
    kSlice,        // operands[0][operands[1]:operands[2]:operands[3]], each of these maybe null
    kCall,         // operands[0](operands[1...], named)
    kFilter,       // operands[0] | name(operands[1...], named)
    kTest,         // operands[0] is name(operands[1...], named)
    kNot,          // operands[0]
    kNegate,       // operands[0]
    kPlus,         // operands[0]
    kArithmetic,   // operands[0] name operands[1]
    kConcat,       // operands, as strings
    kCompare,      // operands[0] names[0] operands[1] names[1] ...
    kAnd,          // operands[0], operands[1]
    kOr,           // operands[0], operands[1]
    kConditional,  // operands[0] if operands[1] else operands[2], which may be null
  };

  Kind kind = Kind::kConstant;
  int line = 0;
  int depth = 1;  // of the tree from here
  std::string name;
  std::vector<std::string> names;
  Value constant;
  std::vector<ExprPtr> operands;
  std::vector<std::pair<std::string, ExprPtr>> named;
};

struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with defaults, or null
  Body body;
};

struct Stmt {
  enum class Kind {
    kText,      // text
    kOutput,    // expr
    kIf,        // branches: condition (null: else) and body
    kFor,       // for targets in expr [if filter]: body, else_body
    kSet,       // targets = expr
    kSetBlock,  // targets[0] = what body writes
    kMacro,     // macro
    kBreak,
    kContinue,
  };
  struct Branch {
    ExprPtr condition;
    Body body;
  };

  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  ExprPtr expr;
  ExprPtr filter;
  std::vector<std::string> targets;
  std::string attribute;  // kSet: of the namespace targets[0]; "" for plain names
  std::vector<Branch> branches;
  Body body, else_body;
  std::unique_ptr<const Macro> macro;
};

struct Template {
  Body body;
};

}  // namespace gatefold::jinja

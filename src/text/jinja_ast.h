// The syntax tree of a template. Plain data: the parser builds it, the interpreter reads it.
//
// Threading: immutable after parsing; any number of renderings may read it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace baton::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr star;         // *arguments
  ExpressionPtr double_star;  // **arguments
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expression {
  enum class Type : uint8_t {
    kConstant,         // value
    kName,             // name
    kNamespaceTarget,  // name.attribute, only as a target of `set`
    kList,             // operands
    kTuple,            // operands
    kDict,             // operands: key, value, key, value
    kAttribute,        // operands[0].attribute
    kItem,             // operands[0][operands[1]]
    kSlice,            // operands: start, stop, step; each may be null. Only inside kItem and its tuples.
    kCall,             // operands[0](arguments)
    kFilter,           // operands[0] | name(arguments); no operand: the body of a block
    kTest,             // operands[0] is name(arguments)
    kNot,
    kNegative,
    kPositive,
    kBinary,  // operands[0] operators[0] operands[1]
    kConcat,  // operands joined by ~
    kAnd,
    kOr,
    kCompare,      // operands[0] operators[0] operands[1] operators[1] operands[2]
    kConditional,  // operands[0] if operands[1] else operands[2]; the last may be null
  };
  Type type = Type::kConstant;
  int line = 1;
  int depth = 1;  // of the tree below, itself included
  Value value;
  std::string name;
  std::string attribute;
  std::vector<ExpressionPtr> operands;
  std::vector<Operator> operators;
  CallArguments arguments;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Parameter {
  std::string name;
  ExpressionPtr default_value;  // null: none
};

// A macro, or the body that a call block hands to one.
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

struct Statement {
  enum class Type : uint8_t {
    kText,         // text
    kOutput,       // expressions
    kFor,          // target in expression if condition: body else otherwise
    kIf,           // condition: body else otherwise (an elif is an if in otherwise)
    kSet,          // target = expression
    kSetBlock,     // target = body, through the filters of expression (may be null)
    kMacro,        // macro
    kCallBlock,    // expression (a call) with macro as its caller
    kFilterBlock,  // body through the filters of expression
    kWith,         // targets[i] = expressions[i]: body
    kScope,        // body with its own names
    kBreak,
    kContinue,
  };
  Type type = Type::kText;
  int line = 1;
  bool recursive = false;
  std::string text;
  ExpressionPtr target;
  ExpressionPtr expression;
  ExpressionPtr condition;
  std::vector<ExpressionPtr> targets;
  std::vector<ExpressionPtr> expressions;
  std::unique_ptr<MacroDefinition> macro;
  Body body;
  Body otherwise;
};

}  // namespace baton::jinja

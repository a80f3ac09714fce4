// The half of the parser that reads expressions. jinja_parser.cc reads statements with it.
//
// Threading: one parsing. Errors and limits: as jinja_parser.h.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_token_stream.h"

namespace baton::jinja {

class ExpressionParser {
 public:
  using Result = absl::StatusOr<ExpressionPtr>;

  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  // `with_condition`: an inline if may follow.
  Result ParseExpression(bool with_condition = true);

  struct TupleOptions {
    bool only_targets = false;  // names instead of expressions
    bool with_condition = true;
    bool in_parentheses = false;   // may be empty
    bool allow_namespace = false;  // targets may be name.attribute
  };
  // One expression, or a tuple of several.
  Result ParseTuple(const TupleOptions& options);
  // What an assignment may assign to.
  Result ParseTarget(bool allow_namespace);
  // `| name(arguments) | …` after `operand`; with `operand` null the first bar is there already when `inline_start`.
  Result ParseFilters(ExpressionPtr operand, bool inline_start);

  // Unknown filters and tests are errors of the template, except where a condition may never reach them: there they
  // are errors of the rendering.
  bool conditional = false;
  absl::Status UnknownNames() const { return unknown_.empty() ? absl::OkStatus() : unknown_.front(); }

  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;

 private:
  using Type = Expression::Type;

  ExpressionPtr Make(Type type) const;
  static ExpressionPtr MakeUnary(Type type, int line, ExpressionPtr operand);
  Result Finish(ExpressionPtr expression) const;
  Result FinishBinary(Operator op, ExpressionPtr left, ExpressionPtr right) const;
  Result ParseConditional();
  Result ParseOr();
  Result ParseAnd();
  Result ParseNot();
  Result ParseCompare();
  Result ParseSum();
  Result ParseConcat();
  Result ParseProduct();
  Result ParsePower();
  Result ParseUnary(bool with_filters = true);
  Result ParsePostfix(ExpressionPtr operand);
  Result ParseFilterOrTest(ExpressionPtr operand);
  Result ParseTest(ExpressionPtr operand);
  Result ParsePrimary(bool allow_namespace = false);
  Result ParseName(bool allow_namespace);
  Result ParseList();
  Result ParseDict();
  Result ParseDot(ExpressionPtr operand);
  Result ParseSubscript(ExpressionPtr operand);
  Result ParseSubscriptPart();
  Result ParseCall(ExpressionPtr operand);
  absl::Status ParseArguments(CallArguments& arguments);
  absl::Status ParseArgument(CallArguments& arguments);
  absl::StatusOr<std::string> ParseDottedName(std::string_view what);

  void CheckName(bool known, std::string_view kind, const std::string& name);

  TokenStream& tokens_;
  std::vector<absl::Status> unknown_;
  int nesting_ = 0;
};

}  // namespace baton::jinja

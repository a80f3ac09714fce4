#include "text/jinja_expression_parser.h"

#include <algorithm>
#include <optional>

#include "text/jinja_builtins.h"

namespace baton::jinja {

namespace {

constexpr int kMaxNesting = 100;
constexpr int kMaxDepth = 200;

struct NestingGuard {
  explicit NestingGuard(int& nesting) : nesting(nesting) { ++nesting; }
  ~NestingGuard() { --nesting; }
  int& nesting;
};

void RaiseDepth(int& depth, const ExpressionPtr& child) {
  if (child != nullptr) depth = std::max(depth, child->depth + 1);
}

std::optional<Operator> ComparisonOf(const Token& token) {
  if (token.type != TokenType::kOperator) return std::nullopt;
  if (token.text == "==") return Operator::kEqual;
  if (token.text == "!=") return Operator::kNotEqual;
  if (token.text == "<") return Operator::kLess;
  if (token.text == "<=") return Operator::kLessEqual;
  if (token.text == ">") return Operator::kGreater;
  if (token.text == ">=") return Operator::kGreaterEqual;
  return std::nullopt;
}

}  // namespace

ExpressionPtr ExpressionParser::Make(Type type) const {
  auto expression = std::make_unique<Expression>();
  expression->type = type;
  expression->line = tokens_.line();
  return expression;
}

ExpressionPtr ExpressionParser::MakeUnary(Type type, int line, ExpressionPtr operand) {
  auto expression = std::make_unique<Expression>();
  expression->type = type;
  expression->line = line;
  expression->operands.push_back(std::move(operand));
  return expression;
}

// Long chains (a.b.c…, a + b + c…) are deep trees without any nesting in the text.
ExpressionParser::Result ExpressionParser::Finish(ExpressionPtr expression) const {
  for (const auto& operand : expression->operands) RaiseDepth(expression->depth, operand);
  for (const auto& argument : expression->arguments.positional) RaiseDepth(expression->depth, argument);
  for (const auto& [name, argument] : expression->arguments.named) RaiseDepth(expression->depth, argument);
  RaiseDepth(expression->depth, expression->arguments.star);
  RaiseDepth(expression->depth, expression->arguments.double_star);
  if (expression->depth > kMaxDepth) {
    return tokens_.Fail("the expression is deeper than the limit of ", kMaxDepth, " operations");
  }
  return expression;
}

ExpressionParser::Result ExpressionParser::FinishBinary(Operator op, ExpressionPtr left, ExpressionPtr right) const {
  ExpressionPtr expression = MakeUnary(Type::kBinary, left->line, std::move(left));
  expression->operators.push_back(op);
  expression->operands.push_back(std::move(right));
  return Finish(std::move(expression));
}

ExpressionParser::Result ExpressionParser::ParseExpression(bool with_condition) {
  const NestingGuard guard(nesting_);
  if (nesting_ > kMaxNesting) {
    return tokens_.Fail("expressions are nested deeper than the limit of ", kMaxNesting);
  }
  return with_condition ? ParseConditional() : ParseOr();
}

ExpressionParser::Result ExpressionParser::ParseConditional() {
  const size_t unknown_before = unknown_.size();
  BATON_ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (tokens_.AtName("if")) {
    ExpressionPtr conditional = Make(Type::kConditional);
    tokens_.Take();
    BATON_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (tokens_.TakeName("else")) {
      BATON_ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    conditional->operands.push_back(std::move(value));
    conditional->operands.push_back(std::move(condition));
    conditional->operands.push_back(std::move(otherwise));
    BATON_ASSIGN_OR_RETURN(value, Finish(std::move(conditional)));
    unknown_.resize(unknown_before);
  }
  return value;
}

ExpressionParser::Result ExpressionParser::ParseOr() {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr left, ParseAnd());
  while (tokens_.AtName("or")) {
    ExpressionPtr both = Make(Type::kOr);
    tokens_.Take();
    BATON_ASSIGN_OR_RETURN(ExpressionPtr right, ParseAnd());
    both->operands.push_back(std::move(left));
    both->operands.push_back(std::move(right));
    BATON_ASSIGN_OR_RETURN(left, Finish(std::move(both)));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseAnd() {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr left, ParseNot());
  while (tokens_.AtName("and")) {
    ExpressionPtr both = Make(Type::kAnd);
    tokens_.Take();
    BATON_ASSIGN_OR_RETURN(ExpressionPtr right, ParseNot());
    both->operands.push_back(std::move(left));
    both->operands.push_back(std::move(right));
    BATON_ASSIGN_OR_RETURN(left, Finish(std::move(both)));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseNot() {
  if (!tokens_.AtName("not")) return ParseCompare();
  const NestingGuard guard(nesting_);
  if (nesting_ > kMaxNesting) return tokens_.Fail("more nested 'not' than the limit of ", kMaxNesting);
  const int line = tokens_.line();
  tokens_.Take();
  BATON_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
  return Finish(MakeUnary(Type::kNot, line, std::move(operand)));
}

ExpressionParser::Result ExpressionParser::ParseCompare() {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  ExpressionPtr comparison;
  while (true) {
    std::optional<Operator> op = ComparisonOf(tokens_.current());
    if (tokens_.AtName("in")) op = Operator::kIn;
    if (tokens_.AtName("not") && tokens_.next().type == TokenType::kName && tokens_.next().text == "in") {
      op = Operator::kNotIn;
      tokens_.Take();
    }
    if (!op.has_value()) break;
    tokens_.Take();
    if (comparison == nullptr) comparison = MakeUnary(Type::kCompare, first->line, std::move(first));
    comparison->operators.push_back(*op);
    BATON_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
    comparison->operands.push_back(std::move(operand));
  }
  return comparison == nullptr ? Result(std::move(first)) : Finish(std::move(comparison));
}

ExpressionParser::Result ExpressionParser::ParseSum() {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr left, ParseConcat());
  while (tokens_.AtOperator("+") || tokens_.AtOperator("-")) {
    const Operator op = tokens_.Take().text == "+" ? Operator::kAdd : Operator::kSubtract;
    BATON_ASSIGN_OR_RETURN(ExpressionPtr right, ParseConcat());
    BATON_ASSIGN_OR_RETURN(left, FinishBinary(op, std::move(left), std::move(right)));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseConcat() {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr first, ParseProduct());
  if (!tokens_.AtOperator("~")) return first;
  ExpressionPtr concat = MakeUnary(Type::kConcat, first->line, std::move(first));
  while (tokens_.TakeOperator("~")) {
    BATON_ASSIGN_OR_RETURN(ExpressionPtr operand, ParseProduct());
    concat->operands.push_back(std::move(operand));
  }
  return Finish(std::move(concat));
}

ExpressionParser::Result ExpressionParser::ParseProduct() {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr left, ParsePower());
  while (true) {
    Operator op = Operator::kMultiply;
    if (tokens_.AtOperator("/")) {
      op = Operator::kDivide;
    } else if (tokens_.AtOperator("//")) {
      op = Operator::kFloorDivide;
    } else if (tokens_.AtOperator("%")) {
      op = Operator::kModulo;
    } else if (!tokens_.AtOperator("*")) {
      return left;
    }
    tokens_.Take();
    BATON_ASSIGN_OR_RETURN(ExpressionPtr right, ParsePower());
    BATON_ASSIGN_OR_RETURN(left, FinishBinary(op, std::move(left), std::move(right)));
  }
}

ExpressionParser::Result ExpressionParser::ParsePower() {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr left, ParseUnary());
  while (tokens_.TakeOperator("**")) {  // Jinja groups from the left, where Python groups from the right
    BATON_ASSIGN_OR_RETURN(ExpressionPtr right, ParseUnary());
    BATON_ASSIGN_OR_RETURN(left, FinishBinary(Operator::kPower, std::move(left), std::move(right)));
  }
  return left;
}

ExpressionParser::Result ExpressionParser::ParseUnary(bool with_filters) {
  const NestingGuard guard(nesting_);
  if (nesting_ > kMaxNesting) return tokens_.Fail("expressions are nested deeper than the limit of ", kMaxNesting);
  ExpressionPtr operand;
  if (tokens_.AtOperator("-") || tokens_.AtOperator("+")) {
    const int line = tokens_.line();
    const Type type = tokens_.Take().text == "-" ? Type::kNegative : Type::kPositive;
    BATON_ASSIGN_OR_RETURN(ExpressionPtr inner, ParseUnary(false));
    BATON_ASSIGN_OR_RETURN(operand, Finish(MakeUnary(type, line, std::move(inner))));
  } else {
    BATON_ASSIGN_OR_RETURN(operand, ParsePrimary());
  }
  BATON_ASSIGN_OR_RETURN(operand, ParsePostfix(std::move(operand)));
  return with_filters ? ParseFilterOrTest(std::move(operand)) : Result(std::move(operand));
}

ExpressionParser::Result ExpressionParser::ParsePostfix(ExpressionPtr operand) {
  while (true) {
    if (tokens_.AtOperator(".")) {
      BATON_ASSIGN_OR_RETURN(operand, ParseDot(std::move(operand)));
    } else if (tokens_.AtOperator("[")) {
      BATON_ASSIGN_OR_RETURN(operand, ParseSubscript(std::move(operand)));
    } else if (tokens_.AtOperator("(")) {
      BATON_ASSIGN_OR_RETURN(operand, ParseCall(std::move(operand)));
    } else {
      return operand;
    }
  }
}

ExpressionParser::Result ExpressionParser::ParseFilterOrTest(ExpressionPtr operand) {
  while (true) {
    if (tokens_.AtOperator("|")) {
      BATON_ASSIGN_OR_RETURN(operand, ParseFilters(std::move(operand), false));
    } else if (tokens_.AtName("is")) {
      BATON_ASSIGN_OR_RETURN(operand, ParseTest(std::move(operand)));
    } else if (tokens_.AtOperator("(")) {
      BATON_ASSIGN_OR_RETURN(operand, ParseCall(std::move(operand)));
    } else {
      return operand;
    }
  }
}

absl::StatusOr<std::string> ExpressionParser::ParseDottedName(std::string_view what) {
  BATON_ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName(what));
  while (tokens_.TakeOperator(".")) {
    BATON_ASSIGN_OR_RETURN(const std::string part, tokens_.ExpectName(what));
    name += "." + part;
  }
  return name;
}

void ExpressionParser::CheckName(bool known, std::string_view kind, const std::string& name) {
  if (known || conditional) return;
  unknown_.push_back(tokens_.Fail("there is no ", kind, " named ", QuoteText(name)));
}

ExpressionParser::Result ExpressionParser::ParseFilters(ExpressionPtr operand, bool inline_start) {
  while (inline_start || tokens_.TakeOperator("|")) {
    inline_start = false;
    ExpressionPtr filter = Make(Type::kFilter);
    BATON_ASSIGN_OR_RETURN(filter->name, ParseDottedName("the name of a filter"));
    CheckName(HasFilter(filter->name), "filter", filter->name);
    if (tokens_.AtOperator("(")) BATON_RETURN_IF_ERROR(ParseArguments(filter->arguments));
    filter->operands.push_back(std::move(operand));
    BATON_ASSIGN_OR_RETURN(operand, Finish(std::move(filter)));
  }
  return operand;
}

ExpressionParser::Result ExpressionParser::ParseTest(ExpressionPtr operand) {
  ExpressionPtr test = Make(Type::kTest);
  const int line = tokens_.line();
  tokens_.Take();
  const bool negated = tokens_.TakeName("not");
  BATON_ASSIGN_OR_RETURN(test->name, ParseDottedName("the name of a test"));
  CheckName(HasTest(test->name), "test", test->name);
  const Token& token = tokens_.current();
  const bool literal = token.type == TokenType::kString || token.type == TokenType::kInteger ||
                       token.type == TokenType::kDouble || token.type == TokenType::kName;
  test->operands.push_back(std::move(operand));
  if (tokens_.AtOperator("(")) {
    BATON_RETURN_IF_ERROR(ParseArguments(test->arguments));
  } else if ((literal || tokens_.AtOperator("[") || tokens_.AtOperator("{")) &&
             !tokens_.AtAnyName({"else", "or", "and"})) {
    if (tokens_.AtName("is")) return tokens_.Fail("tests cannot be chained with 'is'; join them with 'and'");
    BATON_ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
    BATON_ASSIGN_OR_RETURN(argument, ParsePostfix(std::move(argument)));
    test->arguments.positional.push_back(std::move(argument));
  }
  BATON_ASSIGN_OR_RETURN(test, Finish(std::move(test)));
  return negated ? Finish(MakeUnary(Type::kNot, line, std::move(test))) : Result(std::move(test));
}

}  // namespace baton::jinja

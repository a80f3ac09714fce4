// Literals, names, subscripts, calls, and tuples: the leaves of ExpressionParser.
#include <algorithm>

#include "text/jinja_expression_parser.h"

namespace baton::jinja {

namespace {

bool IsTarget(const Expression& expression) {
  if (expression.type == Expression::Type::kName || expression.type == Expression::Type::kNamespaceTarget) return true;
  return expression.type == Expression::Type::kTuple &&
         std::all_of(expression.operands.begin(), expression.operands.end(),
                     [](const ExpressionPtr& operand) { return IsTarget(*operand); });
}

}  // namespace

ExpressionParser::Result ExpressionParser::ParsePrimary(bool allow_namespace) {
  if (tokens_.At(TokenType::kName)) return ParseName(allow_namespace);
  ExpressionPtr constant = Make(Type::kConstant);
  if (tokens_.At(TokenType::kString)) {
    std::string text;
    while (tokens_.At(TokenType::kString)) text += tokens_.Take().text;  // strings side by side are one
    constant->value = Value::String(std::move(text));
    return constant;
  }
  if (tokens_.At(TokenType::kInteger)) {
    constant->value = Value::Integer(tokens_.Take().integer);
    return constant;
  }
  if (tokens_.At(TokenType::kDouble)) {
    constant->value = Value::Double(tokens_.Take().number);
    return constant;
  }
  if (tokens_.TakeOperator("(")) {
    BATON_ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTuple({.in_parentheses = true}));
    BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    return inner;
  }
  if (tokens_.AtOperator("[")) return ParseList();
  if (tokens_.AtOperator("{")) return ParseDict();
  return tokens_.Fail("expected an expression, found ", tokens_.Describe());
}

ExpressionParser::Result ExpressionParser::ParseName(bool allow_namespace) {
  ExpressionPtr expression = Make(Type::kConstant);
  const std::string name = tokens_.Take().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    expression->value = Value::Bool(name == "true" || name == "True");
    return expression;
  }
  if (name == "none" || name == "None") {
    expression->value = Value::None();
    return expression;
  }
  expression->type = Type::kName;
  expression->name = name;
  uses_caller |= name == "caller";
  uses_varargs |= name == "varargs";
  uses_kwargs |= name == "kwargs";
  if (allow_namespace && tokens_.TakeOperator(".")) {
    expression->type = Type::kNamespaceTarget;
    BATON_ASSIGN_OR_RETURN(expression->attribute, tokens_.ExpectName("the name of an attribute"));
  }
  return expression;
}

ExpressionParser::Result ExpressionParser::ParseList() {
  ExpressionPtr list = Make(Type::kList);
  tokens_.Take();
  while (!tokens_.AtOperator("]")) {
    if (!list->operands.empty()) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.AtOperator("]")) break;
    BATON_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    list->operands.push_back(std::move(item));
  }
  BATON_RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return Finish(std::move(list));
}

ExpressionParser::Result ExpressionParser::ParseDict() {
  ExpressionPtr dict = Make(Type::kDict);
  tokens_.Take();
  while (!tokens_.AtOperator("}")) {
    if (!dict->operands.empty()) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.AtOperator("}")) break;
    BATON_ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    BATON_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    dict->operands.push_back(std::move(key));
    dict->operands.push_back(std::move(value));
  }
  BATON_RETURN_IF_ERROR(tokens_.ExpectOperator("}"));
  return Finish(std::move(dict));
}

ExpressionParser::Result ExpressionParser::ParseTuple(const TupleOptions& options) {
  ExpressionPtr tuple = Make(Type::kTuple);
  bool is_tuple = false;
  while (true) {
    if (!tuple->operands.empty()) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (tokens_.At(TokenType::kVariableEnd) || tokens_.At(TokenType::kBlockEnd) || tokens_.AtOperator(")")) {
      break;
    }
    BATON_ASSIGN_OR_RETURN(ExpressionPtr item, options.only_targets ? ParsePrimary(options.allow_namespace)
                                                                    : ParseExpression(options.with_condition));
    tuple->operands.push_back(std::move(item));
    if (!tokens_.AtOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !tuple->operands.empty()) return std::move(tuple->operands.front());
  if (!is_tuple && !options.in_parentheses) {
    return tokens_.Fail("expected an expression, found ", tokens_.Describe());
  }
  return Finish(std::move(tuple));
}

ExpressionParser::Result ExpressionParser::ParseTarget(bool allow_namespace) {
  BATON_ASSIGN_OR_RETURN(ExpressionPtr target, ParseTuple({.only_targets = true, .allow_namespace = allow_namespace}));
  if (!IsTarget(*target)) return tokens_.Fail("expected a name to assign to before ", tokens_.Describe());
  return target;
}

ExpressionParser::Result ExpressionParser::ParseDot(ExpressionPtr operand) {
  ExpressionPtr access = MakeUnary(Type::kAttribute, tokens_.line(), std::move(operand));
  tokens_.Take();
  if (tokens_.At(TokenType::kInteger)) {
    access->type = Type::kItem;
    ExpressionPtr index = Make(Type::kConstant);
    index->value = Value::Integer(tokens_.Take().integer);
    access->operands.push_back(std::move(index));
  } else {
    BATON_ASSIGN_OR_RETURN(access->attribute, tokens_.ExpectName("a name or number after '.'"));
  }
  return Finish(std::move(access));
}

ExpressionParser::Result ExpressionParser::ParseSubscript(ExpressionPtr operand) {
  ExpressionPtr access = MakeUnary(Type::kItem, tokens_.line(), std::move(operand));
  tokens_.Take();
  ExpressionPtr tuple = Make(Type::kTuple);
  while (!tokens_.AtOperator("]")) {
    if (!tuple->operands.empty()) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    BATON_ASSIGN_OR_RETURN(ExpressionPtr part, ParseSubscriptPart());
    tuple->operands.push_back(std::move(part));
  }
  tokens_.Take();
  if (tuple->operands.size() == 1) {
    access->operands.push_back(std::move(tuple->operands.front()));
  } else {
    for (const ExpressionPtr& part : tuple->operands) {
      if (part->type == Type::kSlice) return tokens_.Fail("expected one slice in a subscript, found several parts");
    }
    BATON_ASSIGN_OR_RETURN(tuple, Finish(std::move(tuple)));
    access->operands.push_back(std::move(tuple));
  }
  return Finish(std::move(access));
}

ExpressionParser::Result ExpressionParser::ParseSubscriptPart() {
  ExpressionPtr slice = Make(Type::kSlice);
  ExpressionPtr start;
  if (!tokens_.AtOperator(":")) {
    BATON_ASSIGN_OR_RETURN(start, ParseExpression());
    if (!tokens_.AtOperator(":")) return start;
  }
  slice->operands.push_back(std::move(start));
  for (int part = 0; part < 2; ++part) {  // the stop and the step
    ExpressionPtr value;
    if (tokens_.TakeOperator(":") && !tokens_.AtOperator(":") && !tokens_.AtOperator("]") && !tokens_.AtOperator(",")) {
      BATON_ASSIGN_OR_RETURN(value, ParseExpression());
    }
    slice->operands.push_back(std::move(value));
  }
  return Finish(std::move(slice));
}

ExpressionParser::Result ExpressionParser::ParseCall(ExpressionPtr operand) {
  ExpressionPtr call = MakeUnary(Type::kCall, tokens_.line(), std::move(operand));
  BATON_RETURN_IF_ERROR(ParseArguments(call->arguments));
  return Finish(std::move(call));
}

absl::Status ExpressionParser::ParseArguments(CallArguments& arguments) {
  BATON_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  bool first = true;
  while (!tokens_.AtOperator(")")) {
    if (!first) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    if (!first && tokens_.AtOperator(")")) break;
    first = false;
    BATON_RETURN_IF_ERROR(ParseArgument(arguments));
  }
  return tokens_.ExpectOperator(")");
}

absl::Status ExpressionParser::ParseArgument(CallArguments& arguments) {
  const bool starred = arguments.star != nullptr || arguments.double_star != nullptr;
  if (tokens_.AtOperator("*") || tokens_.AtOperator("**")) {
    const bool is_double = tokens_.Take().text == "**";
    if (arguments.double_star != nullptr || (starred && !is_double)) {
      return tokens_.Fail("expected one * and then one ** argument at most");
    }
    BATON_ASSIGN_OR_RETURN((is_double ? arguments.double_star : arguments.star), ParseExpression());
  } else if (tokens_.At(TokenType::kName) && tokens_.next().type == TokenType::kOperator &&
             tokens_.next().text == "=") {
    if (arguments.double_star != nullptr) return tokens_.Fail("expected nothing after a ** argument");
    const std::string name = tokens_.Take().text;
    tokens_.Take();
    for (const auto& [other, value] : arguments.named) {
      if (other == name) return tokens_.Fail("the argument '", name, "' is given twice");
    }
    BATON_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    arguments.named.emplace_back(name, std::move(value));
  } else {
    if (starred || !arguments.named.empty()) {
      return tokens_.Fail("expected a named argument after named or starred ones, found ", tokens_.Describe());
    }
    BATON_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    arguments.positional.push_back(std::move(value));
  }
  return absl::OkStatus();
}

}  // namespace baton::jinja

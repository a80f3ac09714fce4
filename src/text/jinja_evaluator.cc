// Expressions of the Interpreter.
#include "text/jinja_access.h"
#include "text/jinja_builtins.h"
#include "text/jinja_interpreter.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Type = Expression::Type;

}  // namespace

Interpreter::Result Interpreter::Evaluate(const Expression& expression, const ScopePtr& scope) {
  if (depth_ >= runtime_.limits().evaluation_depth) {
    return InvalidArgument("the template nests deeper than the limit of ", runtime_.limits().evaluation_depth,
                           " steps");
  }
  BATON_RETURN_IF_ERROR(runtime_.Charge(1));
  runtime_.line = expression.line;
  ++depth_;
  Result result = EvaluateType(expression, scope);
  --depth_;
  if (result.ok() && result->depth() > runtime_.limits().value_depth) {
    return InvalidArgument("a value is nested deeper than the limit of ", runtime_.limits().value_depth);
  }
  return result;
}

Interpreter::Result Interpreter::EvaluateType(const Expression& expression, const ScopePtr& scope) {
  switch (expression.type) {
    case Type::kConstant:
      return expression.value;
    case Type::kName:
    case Type::kNamespaceTarget:
      return EvaluateName(expression, scope);
    case Type::kList:
    case Type::kTuple:
      return EvaluateSequence(expression, scope);
    case Type::kDict:
      return EvaluateDict(expression, scope);
    case Type::kAttribute: {
      BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0], scope));
      if (value.is_undefined()) return UndefinedError(value);
      return GetAttribute(value, expression.attribute);
    }
    case Type::kItem:
      return EvaluateItem(expression, scope);
    case Type::kSlice:
      return InvalidArgument("a slice stands only in a subscript");
    case Type::kCall:
      return EvaluateCall(expression, scope);
    case Type::kFilter:
      return EvaluateFilter(expression, scope);
    case Type::kTest:
      return EvaluateTest(expression, scope);
    case Type::kNot:
    case Type::kNegative:
    case Type::kPositive:
      return EvaluateUnary(expression, scope);
    case Type::kBinary:
      return EvaluateBinary(expression, scope);
    case Type::kConcat:
      return EvaluateConcat(expression, scope);
    case Type::kAnd:
    case Type::kOr:
      return EvaluateLogic(expression, scope);
    case Type::kCompare:
      return EvaluateCompare(expression, scope);
    case Type::kConditional:
      return EvaluateConditional(expression, scope);
  }
  return Internal("an expression has no type");
}

Interpreter::Result Interpreter::EvaluateName(const Expression& expression, const ScopePtr& scope) {
  size_t visited = 0;
  const Value* local = scope->Find(expression.name, visited);
  BATON_RETURN_IF_ERROR(runtime_.Charge(visited / 16));
  if (local != nullptr) return *local;
  if (const Value* found = variables_.Find(expression.name)) return *found;
  if (std::optional<Value> function = FindFunction(expression.name)) return *std::move(function);
  return Value::Undefined(Cat("'", expression.name, "' is undefined"));
}

Interpreter::Result Interpreter::EvaluateSequence(const Expression& expression, const ScopePtr& scope) {
  std::vector<Value> items;
  items.reserve(expression.operands.size());
  for (const ExpressionPtr& operand : expression.operands) {
    BATON_ASSIGN_OR_RETURN(Value item, Evaluate(*operand, scope));
    items.push_back(std::move(item));
  }
  return expression.type == Type::kList ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

Interpreter::Result Interpreter::EvaluateDict(const Expression& expression, const ScopePtr& scope) {
  Dict dict;
  for (size_t i = 0; i + 1 < expression.operands.size(); i += 2) {
    BATON_ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.operands[i], scope));
    BATON_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i + 1], scope));
    if (!Dict::IsHashable(key)) return InvalidArgument("a ", key.TypeName(), " can't be the key of a dict");
    dict.Set(key, std::move(value));
  }
  return Value::FromDict(std::move(dict));
}

Interpreter::Result Interpreter::EvaluateItem(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0], scope));
  const Expression& subscript = *expression.operands[1];
  if (subscript.type == Type::kSlice) return EvaluateSlice(subscript, value, scope);
  BATON_ASSIGN_OR_RETURN(const Value key, Evaluate(subscript, scope));
  if (value.is_undefined()) return UndefinedError(value);
  return GetItem(value, key);
}

Interpreter::Result Interpreter::EvaluateSlice(const Expression& slice, const Value& value, const ScopePtr& scope) {
  Value parts[3] = {Value::None(), Value::None(), Value::None()};
  for (size_t i = 0; i < 3; ++i) {
    if (slice.operands[i] == nullptr) continue;
    BATON_ASSIGN_OR_RETURN(parts[i], Evaluate(*slice.operands[i], scope));
    if (parts[i].is_undefined()) return UndefinedError(parts[i]);
  }
  return Slice(runtime_, value, parts[0], parts[1], parts[2]);
}

absl::Status Interpreter::AddStarred(const CallArguments& arguments, const ScopePtr& scope, Arguments& out) {
  if (arguments.star != nullptr) {
    BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*arguments.star, scope));
    BATON_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime_, value));
    out.positional.insert(out.positional.end(), items.begin(), items.end());
  }
  if (arguments.double_star != nullptr) {
    BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*arguments.double_star, scope));
    if (!value.is_dict()) return InvalidArgument("expected a dict after **, found ", value.TypeName());
    for (const auto& [key, item] : value.dict().entries()) {
      if (!key.is_string()) return InvalidArgument("expected strings as keys after **, found ", key.TypeName());
      for (const auto& [name, unused] : out.named) {
        if (name == key.string()) return InvalidArgument("the argument '", name, "' is given twice");
      }
      out.named.emplace_back(key.string(), item);
    }
    BATON_RETURN_IF_ERROR(runtime_.Charge(out.named.size() * value.dict().size()));
  }
  return absl::OkStatus();
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const CallArguments& arguments, const ScopePtr& scope) {
  Arguments out;
  for (const ExpressionPtr& argument : arguments.positional) {
    BATON_ASSIGN_OR_RETURN(Value value, Evaluate(*argument, scope));
    out.positional.push_back(std::move(value));
  }
  for (const auto& [name, argument] : arguments.named) {
    BATON_ASSIGN_OR_RETURN(Value value, Evaluate(*argument, scope));
    out.named.emplace_back(name, std::move(value));
  }
  BATON_RETURN_IF_ERROR(AddStarred(arguments, scope, out));
  return out;
}

Interpreter::Result Interpreter::EvaluateCall(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value callee, Evaluate(*expression.operands[0], scope));
  BATON_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression.arguments, scope));
  runtime_.line = expression.line;
  return Call(runtime_, callee, std::move(arguments));
}

Interpreter::Result Interpreter::EvaluateFilter(const Expression& expression, const ScopePtr& scope) {
  Value operand;
  if (expression.operands[0] != nullptr) {
    BATON_ASSIGN_OR_RETURN(operand, Evaluate(*expression.operands[0], scope));
  } else {
    operand = *block_text_;
  }
  const Value* outer = std::exchange(block_text_, nullptr);
  absl::StatusOr<Arguments> arguments = EvaluateArguments(expression.arguments, scope);
  block_text_ = outer;
  BATON_RETURN_IF_ERROR(arguments.status());
  runtime_.line = expression.line;
  return CallFilter(runtime_, expression.name, operand, *std::move(arguments));
}

Interpreter::Result Interpreter::FilterText(const Expression* filters, std::string text, const ScopePtr& scope) {
  const Value value = Value::String(std::move(text));
  if (filters == nullptr) return value;
  const Value* outer = std::exchange(block_text_, &value);
  Result result = Evaluate(*filters, scope);
  block_text_ = outer;
  return result;
}

Interpreter::Result Interpreter::EvaluateTest(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value operand, Evaluate(*expression.operands[0], scope));
  BATON_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expression.arguments, scope));
  runtime_.line = expression.line;
  BATON_ASSIGN_OR_RETURN(const bool result, CallTest(runtime_, expression.name, operand, std::move(arguments)));
  return Value::Bool(result);
}

Interpreter::Result Interpreter::EvaluateUnary(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value operand, Evaluate(*expression.operands[0], scope));
  if (expression.type == Type::kNot) return Value::Bool(!IsTrue(operand));
  return Negate(operand, expression.type == Type::kPositive);
}

Interpreter::Result Interpreter::EvaluateBinary(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value left, Evaluate(*expression.operands[0], scope));
  BATON_ASSIGN_OR_RETURN(const Value right, Evaluate(*expression.operands[1], scope));
  runtime_.line = expression.line;
  return Calculate(runtime_, expression.operators[0], left, right);
}

Interpreter::Result Interpreter::EvaluateConcat(const Expression& expression, const ScopePtr& scope) {
  std::string text;
  for (const ExpressionPtr& operand : expression.operands) {
    BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*operand, scope));
    if (value.is_string()) {
      text += value.string();
    } else {
      BATON_ASSIGN_OR_RETURN(const std::string part, ToText(runtime_, value));
      text += part;
    }
    BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
  }
  return Value::String(std::move(text));
}

Interpreter::Result Interpreter::EvaluateLogic(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0], scope));
  const bool decided = IsTrue(left) == (expression.type == Type::kOr);
  return decided ? Result(std::move(left)) : Evaluate(*expression.operands[1], scope);
}

Interpreter::Result Interpreter::EvaluateCompare(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0], scope));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    BATON_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1], scope));
    runtime_.line = expression.line;
    BATON_ASSIGN_OR_RETURN(const bool holds, Compare(runtime_, expression.operators[i], left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Interpreter::Result Interpreter::EvaluateConditional(const Expression& expression, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expression.operands[1], scope));
  if (IsTrue(condition)) return Evaluate(*expression.operands[0], scope);
  if (expression.operands[2] != nullptr) return Evaluate(*expression.operands[2], scope);
  return Value::Undefined("an inline if was false and has no else");
}

}  // namespace baton::jinja

#include "text/jinja_interpreter.h"

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"

namespace baton::jinja {

namespace {

struct Deeper {
  explicit Deeper(int& depth) : depth(depth) { ++depth; }
  ~Deeper() { --depth; }
  int& depth;
};

ScopePtr Inside(const ScopePtr& scope) { return std::make_shared<Scope>(Scope{scope, {}}); }

}  // namespace

void Scope::Set(std::string_view name, Value value) {
  for (auto& [other, old] : names) {
    if (other != name) continue;
    old = std::move(value);
    return;
  }
  names.emplace_back(name, std::move(value));
}

const Value* Scope::Find(std::string_view name, size_t& visited) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent.get()) {
    visited += 1 + scope->names.size();
    for (const auto& [other, value] : scope->names) {
      if (other == name) return &value;
    }
  }
  return nullptr;
}

// A macro holds the scope that holds the macro.
Interpreter::~Interpreter() {
  for (const ScopePtr& scope : captured_) scope->names.clear();
}

absl::StatusOr<std::string> Interpreter::Run(const Body& body) {
  std::string text;
  const auto scope = std::make_shared<Scope>();
  BATON_ASSIGN_OR_RETURN(const Flow flow, Capture(body, scope, text));
  (void)flow;
  return text;
}

absl::Status Interpreter::Write(std::string_view text) {
  BATON_RETURN_IF_ERROR(runtime_.ChargeBytes(
      out_->size() + text.size() > runtime_.limits().output_bytes ? out_->size() + text.size() : text.size()));
  out_->append(text);
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::Capture(const Body& body, const ScopePtr& scope, std::string& text) {
  std::string* outer = std::exchange(out_, &text);
  absl::StatusOr<Flow> flow = Execute(body, scope);
  out_ = outer;
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Body& body, const ScopePtr& scope) {
  for (const auto& statement : body) {
    BATON_ASSIGN_OR_RETURN(const Flow flow, ExecuteOne(*statement, scope));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteOne(const Statement& statement, const ScopePtr& scope) {
  const Deeper deeper(depth_);
  if (depth_ > runtime_.limits().evaluation_depth) {
    return InvalidArgument("the template nests deeper than the limit of ", runtime_.limits().evaluation_depth,
                           " steps");
  }
  BATON_RETURN_IF_ERROR(runtime_.Charge(1));
  runtime_.line = statement.line;
  switch (statement.type) {
    case Statement::Type::kText:
      BATON_RETURN_IF_ERROR(Write(statement.text));
      return Flow::kNext;
    case Statement::Type::kOutput:
      BATON_RETURN_IF_ERROR(ExecuteOutput(statement, scope));
      return Flow::kNext;
    case Statement::Type::kFor:
      return ExecuteFor(statement, scope);
    case Statement::Type::kIf:
      return ExecuteIf(statement, scope);
    case Statement::Type::kSet: {
      BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression, scope));
      BATON_RETURN_IF_ERROR(Assign(*statement.target, value, scope));
      return Flow::kNext;
    }
    case Statement::Type::kSetBlock:
      return ExecuteSetBlock(statement, scope);
    case Statement::Type::kMacro:
      scope->Set(statement.macro->name, MakeMacro(*statement.macro, scope));
      return Flow::kNext;
    case Statement::Type::kCallBlock:
      BATON_RETURN_IF_ERROR(ExecuteCallBlock(statement, scope));
      return Flow::kNext;
    case Statement::Type::kFilterBlock:
      return ExecuteFilterBlock(statement, scope);
    case Statement::Type::kWith:
      return ExecuteWith(statement, scope);
    case Statement::Type::kScope:
      return Execute(statement.body, Inside(scope));
    case Statement::Type::kBreak:
      return Flow::kBreak;
    case Statement::Type::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::Status Interpreter::ExecuteOutput(const Statement& statement, const ScopePtr& scope) {
  for (const ExpressionPtr& expression : statement.expressions) {
    BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression, scope));
    if (value.is_string()) {
      BATON_RETURN_IF_ERROR(Write(value.string()));
      continue;
    }
    BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime_, value));
    BATON_RETURN_IF_ERROR(Write(text));
  }
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const Statement& statement, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value condition, Evaluate(*statement.condition, scope));
  return Execute(IsTrue(condition) ? statement.body : statement.otherwise, scope);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFor(const Statement& statement, const ScopePtr& scope) {
  BATON_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.expression, scope));
  return Loop(statement, scope, iterable, 0);
}

absl::StatusOr<std::vector<Value>> Interpreter::FilterItems(const Statement& statement, const ScopePtr& scope,
                                                            std::vector<Value> items) {
  std::vector<Value> kept;
  for (Value& item : items) {
    const ScopePtr inner = Inside(scope);
    BATON_RETURN_IF_ERROR(Assign(*statement.target, item, inner));
    BATON_ASSIGN_OR_RETURN(const Value wanted, Evaluate(*statement.condition, inner));
    if (IsTrue(wanted)) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Loop(const Statement& statement, const ScopePtr& scope,
                                                    const Value& iterable, int nesting) {
  BATON_ASSIGN_OR_RETURN(std::vector<Value> items, Iterate(runtime_, iterable));
  if (statement.condition != nullptr) {
    BATON_ASSIGN_OR_RETURN(items, FilterItems(statement, scope, std::move(items)));
  }
  if (items.empty()) return Execute(statement.otherwise, Inside(scope));
  const auto loop = std::make_shared<jinja::Loop>();
  loop->items = std::move(items);
  loop->nesting = nesting;
  if (statement.recursive) {
    captured_.push_back(scope);
    loop->recurse = [this, &statement, scope, nesting](Runtime&, Value inner) -> Result {
      if (nesting >= runtime_.limits().macro_depth) return InvalidArgument("a recursive loop nests too deeply");
      std::string text;
      std::string* outer = std::exchange(out_, &text);
      const absl::StatusOr<Flow> flow = Loop(statement, scope, inner, nesting + 1);
      out_ = outer;
      BATON_RETURN_IF_ERROR(flow.status());
      return Value::String(std::move(text));
    };
  }
  const Value loop_value = Value::FromLoop(loop);
  ScopePtr body;
  for (size_t i = 0; i < loop->items.size(); ++i) {
    loop->index = i;
    if (body == nullptr || body.use_count() > 1) {
      body = Inside(scope);
    } else {
      body->names.clear();
    }
    body->Set("loop", loop_value);
    BATON_RETURN_IF_ERROR(Assign(*statement.target, loop->items[i], body));
    BATON_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body, body));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

absl::Status Interpreter::Assign(const Expression& target, const Value& value, const ScopePtr& scope) {
  if (target.type == Expression::Type::kName) {
    BATON_RETURN_IF_ERROR(runtime_.Charge(scope->names.size() / 16));
    scope->Set(target.name, value);
    return absl::OkStatus();
  }
  if (target.type == Expression::Type::kNamespaceTarget) {
    runtime_.line = target.line;
    BATON_ASSIGN_OR_RETURN(const Value object, EvaluateName(target, scope));
    if (!object.is(Kind::kNamespace)) {
      return InvalidArgument("expected a namespace to set the attribute '", target.attribute, "' of, found ",
                             object.TypeName());
    }
    object.name_space().attributes.Set(target.attribute, value);
    return absl::OkStatus();
  }
  if (value.is_undefined()) return UndefinedError(value);
  BATON_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime_, value));
  if (items.size() != target.operands.size()) {
    return InvalidArgument("expected ", target.operands.size(), " values to unpack, found ", items.size());
  }
  for (size_t i = 0; i < items.size(); ++i) BATON_RETURN_IF_ERROR(Assign(*target.operands[i], items[i], scope));
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteSetBlock(const Statement& statement, const ScopePtr& scope) {
  std::string text;
  BATON_ASSIGN_OR_RETURN(const Flow flow, Capture(statement.body, Inside(scope), text));
  if (flow != Flow::kNext) return flow;
  BATON_ASSIGN_OR_RETURN(const Value value, FilterText(statement.expression.get(), std::move(text), scope));
  BATON_RETURN_IF_ERROR(Assign(*statement.target, value, scope));
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFilterBlock(const Statement& statement, const ScopePtr& scope) {
  std::string text;
  BATON_ASSIGN_OR_RETURN(const Flow flow, Capture(statement.body, Inside(scope), text));
  if (flow != Flow::kNext) return flow;
  BATON_ASSIGN_OR_RETURN(const Value value, FilterText(statement.expression.get(), std::move(text), scope));
  BATON_ASSIGN_OR_RETURN(const std::string filtered, ToText(runtime_, value));
  BATON_RETURN_IF_ERROR(Write(filtered));
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteWith(const Statement& statement, const ScopePtr& scope) {
  const ScopePtr inner = Inside(scope);
  for (size_t i = 0; i < statement.targets.size(); ++i) {
    BATON_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expressions[i], scope));
    BATON_RETURN_IF_ERROR(Assign(*statement.targets[i], value, inner));
  }
  return Execute(statement.body, inner);
}

absl::Status Interpreter::ExecuteCallBlock(const Statement& statement, const ScopePtr& scope) {
  const Expression& call = *statement.expression;
  BATON_ASSIGN_OR_RETURN(const Value callee, Evaluate(*call.operands[0], scope));
  BATON_ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(call.arguments, scope));
  arguments.named.emplace_back("caller", MakeMacro(*statement.macro, scope));
  BATON_ASSIGN_OR_RETURN(const Value value, Call(runtime_, callee, std::move(arguments)));
  BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime_, value));
  return Write(text);
}

}  // namespace baton::jinja

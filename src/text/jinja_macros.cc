// Macros of the Interpreter: binding their parameters and running them.
#include <optional>

#include "text/jinja_interpreter.h"

namespace baton::jinja {

namespace {

std::optional<Value> TakeNamed(Arguments& arguments, std::string_view name) {
  for (auto it = arguments.named.begin(); it != arguments.named.end(); ++it) {
    if (it->first != name) continue;
    Value value = std::move(it->second);
    arguments.named.erase(it);
    return value;
  }
  return std::nullopt;
}

bool HasParameter(const MacroDefinition& macro, std::string_view name) {
  for (const Parameter& parameter : macro.parameters) {
    if (parameter.name == name) return true;
  }
  return false;
}

}  // namespace

Value Interpreter::MakeMacro(const MacroDefinition& macro, const ScopePtr& scope) {
  if (captured_.empty() || captured_.back() != scope) captured_.push_back(scope);
  return Value::FromCallable({macro.name, [this, &macro, scope](Runtime&, Arguments arguments) {
                                return CallMacro(macro, scope, std::move(arguments));
                              }});
}

Interpreter::Result Interpreter::CallMacro(const MacroDefinition& macro, const ScopePtr& scope, Arguments arguments) {
  if (macro_depth_ >= runtime_.limits().macro_depth) {
    return InvalidArgument("macros call each other deeper than the limit of ", runtime_.limits().macro_depth);
  }
  const auto inner = std::make_shared<Scope>(Scope{scope, {}});
  std::string text;
  ++macro_depth_;  // the defaults of parameters may call macros too
  absl::Status status = BindParameters(macro, inner, arguments);
  if (status.ok()) status = BindExtras(macro, inner, arguments);
  if (status.ok()) status = Capture(macro.body, inner, text).status();
  --macro_depth_;
  BATON_RETURN_IF_ERROR(status);
  return Value::String(std::move(text));
}

absl::Status Interpreter::BindParameters(const MacroDefinition& macro, const ScopePtr& scope, Arguments& arguments) {
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    if (i < arguments.positional.size()) {
      scope->Set(parameter.name, arguments.positional[i]);
    } else if (std::optional<Value> named = TakeNamed(arguments, parameter.name)) {
      scope->Set(parameter.name, std::move(*named));
    } else if (parameter.default_value != nullptr) {
      BATON_ASSIGN_OR_RETURN(Value value, Evaluate(*parameter.default_value, scope));
      scope->Set(parameter.name, std::move(value));
    } else {
      scope->Set(parameter.name,
                 Value::Undefined(Cat("the parameter '", parameter.name, "' of ", macro.name, " was not provided")));
    }
  }
  return absl::OkStatus();
}

absl::Status Interpreter::BindExtras(const MacroDefinition& macro, const ScopePtr& scope, Arguments& arguments) {
  const size_t expected = macro.parameters.size();
  const auto first =
      arguments.positional.begin() + static_cast<ptrdiff_t>(std::min(expected, arguments.positional.size()));
  if (macro.uses_caller && !HasParameter(macro, "caller")) {
    const std::optional<Value> caller = TakeNamed(arguments, "caller");
    scope->Set("caller", caller.has_value() ? *caller : Value::Undefined("no caller is defined"));
  }
  if (macro.uses_kwargs && !HasParameter(macro, "kwargs")) {
    Dict rest;
    for (auto& [name, value] : arguments.named) rest.Set(name, std::move(value));
    scope->Set("kwargs", Value::FromDict(std::move(rest)));
  } else if (!arguments.named.empty()) {
    return InvalidArgument("the macro ", macro.name, " takes no argument '", arguments.named.front().first, "'");
  }
  if (macro.uses_varargs && !HasParameter(macro, "varargs")) {
    scope->Set("varargs", Value::Tuple({first, arguments.positional.end()}));
  } else if (arguments.positional.size() > expected) {
    return InvalidArgument("the macro ", macro.name, " takes at most ", expected, " arguments, found ",
                           arguments.positional.size());
  }
  return absl::OkStatus();
}

}  // namespace baton::jinja

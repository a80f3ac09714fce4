// Runs a template's syntax tree.
//
// Threading: one interpreter renders once, on one thread; the tree may be shared.
// Ownership: borrows the tree, the variables and the runtime.
// Errors: InvalidArgument; the runtime knows the line. Limits: those of the runtime.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"

namespace baton::jinja {

// The names that one block of statements sets, and the blocks around it.
struct Scope {
  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> names;

  void Set(std::string_view name, Value value);
  const Value* Find(std::string_view name, size_t& visited) const;  // here or around; counts the names it looks at
};
using ScopePtr = std::shared_ptr<Scope>;

class Interpreter {
 public:
  // `variables`: what the template finds besides the builtin functions.
  Interpreter(Runtime& runtime, const Dict& variables) : runtime_(runtime), variables_(variables) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  absl::StatusOr<std::string> Run(const Body& body);

 private:
  using Result = absl::StatusOr<Value>;
  enum class Flow { kNext, kBreak, kContinue };

  // jinja_interpreter.cc: statements.
  absl::StatusOr<Flow> Execute(const Body& body, const ScopePtr& scope);
  absl::StatusOr<Flow> ExecuteOne(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> ExecuteIf(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> ExecuteFor(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> Loop(const Statement& statement, const ScopePtr& scope, const Value& iterable, int nesting);
  absl::StatusOr<std::vector<Value>> FilterItems(const Statement& statement, const ScopePtr& scope,
                                                 std::vector<Value> items);
  absl::StatusOr<Flow> ExecuteSetBlock(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> ExecuteFilterBlock(const Statement& statement, const ScopePtr& scope);
  absl::StatusOr<Flow> ExecuteWith(const Statement& statement, const ScopePtr& scope);
  absl::Status ExecuteOutput(const Statement& statement, const ScopePtr& scope);
  absl::Status ExecuteCallBlock(const Statement& statement, const ScopePtr& scope);
  absl::Status Assign(const Expression& target, const Value& value, const ScopePtr& scope);
  absl::Status Write(std::string_view text);
  // Runs `body` with its output in `text`.
  absl::StatusOr<Flow> Capture(const Body& body, const ScopePtr& scope, std::string& text);

  // jinja_macros.cc.
  Value MakeMacro(const MacroDefinition& macro, const ScopePtr& scope);
  Result CallMacro(const MacroDefinition& macro, const ScopePtr& scope, Arguments arguments);
  absl::Status BindParameters(const MacroDefinition& macro, const ScopePtr& scope, Arguments& arguments);
  absl::Status BindExtras(const MacroDefinition& macro, const ScopePtr& scope, Arguments& arguments);

  // jinja_evaluator.cc: expressions.
  Result Evaluate(const Expression& expression, const ScopePtr& scope);
  Result EvaluateType(const Expression& expression, const ScopePtr& scope);
  Result EvaluateName(const Expression& expression, const ScopePtr& scope);
  Result EvaluateSequence(const Expression& expression, const ScopePtr& scope);
  Result EvaluateDict(const Expression& expression, const ScopePtr& scope);
  Result EvaluateItem(const Expression& expression, const ScopePtr& scope);
  Result EvaluateSlice(const Expression& slice, const Value& value, const ScopePtr& scope);
  Result EvaluateCall(const Expression& expression, const ScopePtr& scope);
  Result EvaluateFilter(const Expression& expression, const ScopePtr& scope);
  Result EvaluateTest(const Expression& expression, const ScopePtr& scope);
  Result EvaluateUnary(const Expression& expression, const ScopePtr& scope);
  Result EvaluateBinary(const Expression& expression, const ScopePtr& scope);
  Result EvaluateConcat(const Expression& expression, const ScopePtr& scope);
  Result EvaluateLogic(const Expression& expression, const ScopePtr& scope);
  Result EvaluateCompare(const Expression& expression, const ScopePtr& scope);
  Result EvaluateConditional(const Expression& expression, const ScopePtr& scope);
  absl::StatusOr<Arguments> EvaluateArguments(const CallArguments& arguments, const ScopePtr& scope);
  absl::Status AddStarred(const CallArguments& arguments, const ScopePtr& scope, Arguments& out);
  // Filters of a block over its text.
  Result FilterText(const Expression* filters, std::string text, const ScopePtr& scope);

  Runtime& runtime_;
  const Dict& variables_;
  std::string* out_ = nullptr;
  int depth_ = 0;
  int macro_depth_ = 0;
  const Value* block_text_ = nullptr;  // the operand of a block's filters
  std::vector<ScopePtr> captured_;     // scopes that values hold: emptied at the end
};

}  // namespace baton::jinja

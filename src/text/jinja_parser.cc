#include "text/jinja_parser.h"

#include <initializer_list>
#include <optional>
#include <string>

#include "text/jinja_expression_parser.h"
#include "text/jinja_lexer.h"

namespace baton::jinja {

namespace {

constexpr int kMaxNesting = 100;

using StatementPtr = std::unique_ptr<Statement>;
using Type = Statement::Type;

// What follows is (or is not) under a condition.
class ConditionalScope {
 public:
  ConditionalScope(ExpressionParser& expressions, bool conditional)
      : expressions_(expressions), outer_(std::exchange(expressions.conditional, conditional)) {}
  ~ConditionalScope() { expressions_.conditional = outer_; }
  ConditionalScope(const ConditionalScope&) = delete;
  ConditionalScope& operator=(const ConditionalScope&) = delete;

 private:
  ExpressionParser& expressions_;
  const bool outer_;
};

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)), expressions_(tokens_) {}

  absl::StatusOr<Body> Run() {
    BATON_ASSIGN_OR_RETURN(Body body, ParseUntil({}));
    BATON_RETURN_IF_ERROR(expressions_.UnknownNames());
    return body;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  StatementPtr Make(Type type) const {
    auto statement = std::make_unique<Statement>();
    statement->type = type;
    statement->line = tokens_.line();
    return statement;
  }

  // Statements up to a tag with one of `end_names`, whose name is the current token afterwards; up to the end of the
  // template where there are none.
  absl::StatusOr<Body> ParseUntil(Names end_names) {
    Body body;
    while (true) {
      StatementPtr statement = Make(Type::kText);
      if (tokens_.At(TokenType::kText)) {
        statement->text = tokens_.Take().text;
      } else if (tokens_.At(TokenType::kVariableBegin)) {
        tokens_.Take();
        statement->type = Type::kOutput;
        BATON_ASSIGN_OR_RETURN(ExpressionPtr expression, expressions_.ParseTuple({}));
        statement->expressions.push_back(std::move(expression));
        BATON_RETURN_IF_ERROR(tokens_.Expect(TokenType::kVariableEnd, "'}}'"));
      } else if (tokens_.At(TokenType::kBlockBegin)) {
        tokens_.Take();
        if (end_names.size() > 0 && tokens_.AtAnyName(end_names)) return body;
        BATON_ASSIGN_OR_RETURN(statement, ParseStatement());
        BATON_RETURN_IF_ERROR(tokens_.Expect(TokenType::kBlockEnd, "'%}'"));
      } else if (end_names.size() > 0) {
        return tokens_.Fail("expected '", *end_names.begin(), "', found ", tokens_.Describe());
      } else {
        return body;
      }
      body.push_back(std::move(statement));
    }
  }

  // The rest of a tag and the statements up to one of `end_names`.
  absl::StatusOr<Body> ParseBody(Names end_names) {
    tokens_.TakeOperator(":");
    BATON_RETURN_IF_ERROR(tokens_.Expect(TokenType::kBlockEnd, "'%}'"));
    return ParseUntil(end_names);
  }
  absl::StatusOr<Body> ParseWholeBody(std::string_view end_name) {
    BATON_ASSIGN_OR_RETURN(Body body, ParseBody({end_name}));
    tokens_.Take();
    return body;
  }

  absl::StatusOr<StatementPtr> ParseStatement() {
    if (nesting_ >= kMaxNesting) return tokens_.Fail("tags are nested deeper than the limit of ", kMaxNesting);
    ++nesting_;
    auto statement = ParseNamedStatement();
    --nesting_;
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseNamedStatement() {
    const int line = tokens_.line();
    BATON_ASSIGN_OR_RETURN(const std::string name, tokens_.ExpectName("the name of a tag"));
    if (name == "for") return ParseFor();
    if (name == "if") return ParseIf();
    if (name == "set") return ParseSet();
    if (name == "macro") return ParseMacro();
    if (name == "call") return ParseCallBlock();
    if (name == "filter") return ParseFilterBlock();
    if (name == "with") return ParseWith();
    if (name == "print") return ParsePrint();
    if (name == "generation") return ParseGeneration();
    if (name == "block") return ParseNamedBlock();
    if (name == "autoescape") return ParseAutoescape();
    if (name == "break" || name == "continue") return ParseLoopControl(name);
    constexpr std::string_view kRefused[] = {"include", "import", "from", "extends"};
    for (const std::string_view refused : kRefused) {
      if (name != refused) continue;
      return InvalidArgument("chat template line ", line, ": the tag '", name, "' is not supported in chat templates");
    }
    return InvalidArgument("chat template line ", line, ": unknown tag '", name, "'");
  }

  absl::StatusOr<StatementPtr> ParseFor() {
    StatementPtr statement = Make(Type::kFor);
    BATON_ASSIGN_OR_RETURN(statement->target, expressions_.ParseTarget(false));
    BATON_RETURN_IF_ERROR(tokens_.ExpectKeyword("in"));
    BATON_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple({.with_condition = false}));
    const ConditionalScope scope(expressions_, false);
    if (tokens_.TakeName("if")) {
      BATON_ASSIGN_OR_RETURN(statement->condition, expressions_.ParseExpression());
    }
    statement->recursive = tokens_.TakeName("recursive");
    const bool outer_loop = std::exchange(in_loop_, true);
    BATON_ASSIGN_OR_RETURN(statement->body, ParseBody({"endfor", "else"}));
    in_loop_ = outer_loop;
    if (tokens_.Take().text == "else") {
      BATON_ASSIGN_OR_RETURN(statement->otherwise, ParseWholeBody("endfor"));
    }
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseIf() {
    StatementPtr first = Make(Type::kIf);
    Statement* current = first.get();
    const int outer_nesting = nesting_;
    const ConditionalScope scope(expressions_, true);
    while (true) {
      BATON_ASSIGN_OR_RETURN(current->condition, expressions_.ParseTuple({.with_condition = false}));
      BATON_ASSIGN_OR_RETURN(current->body, ParseBody({"elif", "else", "endif"}));
      const std::string end = tokens_.Take().text;
      if (end == "else") {
        BATON_ASSIGN_OR_RETURN(current->otherwise, ParseWholeBody("endif"));
      }
      if (end != "elif") {
        nesting_ = outer_nesting;
        return first;
      }
      // Each elif is a level of the tree.
      if (++nesting_ > kMaxNesting) return tokens_.Fail("tags are nested deeper than the limit of ", kMaxNesting);
      current->otherwise.push_back(Make(Type::kIf));
      current = current->otherwise.back().get();
    }
  }

  absl::StatusOr<StatementPtr> ParseSet() {
    StatementPtr statement = Make(Type::kSet);
    BATON_ASSIGN_OR_RETURN(statement->target, expressions_.ParseTarget(true));
    if (tokens_.TakeOperator("=")) {
      BATON_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseTuple({}));
      return statement;
    }
    statement->type = Type::kSetBlock;
    const ConditionalScope scope(expressions_, false);
    BATON_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseFilters(nullptr, false));
    BATON_ASSIGN_OR_RETURN(statement->body, ParseWholeBody("endset"));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParsePrint() {
    StatementPtr statement = Make(Type::kOutput);
    while (!tokens_.At(TokenType::kBlockEnd)) {
      if (!statement->expressions.empty()) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      BATON_ASSIGN_OR_RETURN(ExpressionPtr expression, expressions_.ParseExpression());
      statement->expressions.push_back(std::move(expression));
    }
    return statement;
  }

  absl::Status ParseSignature(MacroDefinition& macro) {
    const ConditionalScope scope(expressions_, false);
    BATON_RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.AtOperator(")")) {
      if (!macro.parameters.empty()) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      Parameter parameter;
      BATON_ASSIGN_OR_RETURN(parameter.name, tokens_.ExpectName("the name of a parameter"));
      for (const Parameter& other : macro.parameters) {
        if (other.name == parameter.name) return tokens_.Fail("the parameter '", parameter.name, "' is named twice");
      }
      if (tokens_.TakeOperator("=")) {
        BATON_ASSIGN_OR_RETURN(parameter.default_value, expressions_.ParseExpression());
      } else if (!macro.parameters.empty() && macro.parameters.back().default_value != nullptr) {
        return tokens_.Fail("expected a default for the parameter '", parameter.name, "' after one that has a default");
      }
      macro.parameters.push_back(std::move(parameter));
    }
    tokens_.Take();
    return absl::OkStatus();
  }

  // A body that runs as a function: it can't leave the loop around it, and what it uses of its caller is noted.
  absl::Status ParseMacroBody(MacroDefinition& macro, std::string_view end_name) {
    const bool outer_loop = std::exchange(in_loop_, false);
    const bool outer_caller = std::exchange(expressions_.uses_caller, false);
    const bool outer_varargs = std::exchange(expressions_.uses_varargs, false);
    const bool outer_kwargs = std::exchange(expressions_.uses_kwargs, false);
    const ConditionalScope scope(expressions_, false);
    BATON_ASSIGN_OR_RETURN(macro.body, ParseWholeBody(end_name));
    macro.uses_caller = expressions_.uses_caller;
    macro.uses_varargs = expressions_.uses_varargs;
    macro.uses_kwargs = expressions_.uses_kwargs;
    // A name inside an inner macro counts for the outer one too, as it does for Jinja.
    expressions_.uses_caller |= outer_caller;
    expressions_.uses_varargs |= outer_varargs;
    expressions_.uses_kwargs |= outer_kwargs;
    in_loop_ = outer_loop;
    return absl::OkStatus();
  }

  absl::StatusOr<StatementPtr> ParseMacro() {
    StatementPtr statement = Make(Type::kMacro);
    statement->macro = std::make_unique<MacroDefinition>();
    BATON_ASSIGN_OR_RETURN(statement->macro->name, tokens_.ExpectName("the name of a macro"));
    BATON_RETURN_IF_ERROR(ParseSignature(*statement->macro));
    BATON_RETURN_IF_ERROR(ParseMacroBody(*statement->macro, "endmacro"));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseCallBlock() {
    StatementPtr statement = Make(Type::kCallBlock);
    statement->macro = std::make_unique<MacroDefinition>();
    statement->macro->name = "caller";
    if (tokens_.AtOperator("(")) BATON_RETURN_IF_ERROR(ParseSignature(*statement->macro));
    BATON_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseExpression());
    if (statement->expression->type != Expression::Type::kCall) {
      return tokens_.Fail("expected a call in a call tag before ", tokens_.Describe());
    }
    BATON_RETURN_IF_ERROR(ParseMacroBody(*statement->macro, "endcall"));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseFilterBlock() {
    StatementPtr statement = Make(Type::kFilterBlock);
    const ConditionalScope scope(expressions_, false);
    BATON_ASSIGN_OR_RETURN(statement->expression, expressions_.ParseFilters(nullptr, true));
    BATON_ASSIGN_OR_RETURN(statement->body, ParseWholeBody("endfilter"));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseWith() {
    StatementPtr statement = Make(Type::kWith);
    while (!tokens_.At(TokenType::kBlockEnd)) {
      if (!statement->targets.empty()) BATON_RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      BATON_ASSIGN_OR_RETURN(ExpressionPtr target, expressions_.ParseTarget(false));
      BATON_RETURN_IF_ERROR(tokens_.ExpectOperator("="));
      BATON_ASSIGN_OR_RETURN(ExpressionPtr value, expressions_.ParseExpression());
      statement->targets.push_back(std::move(target));
      statement->expressions.push_back(std::move(value));
    }
    const ConditionalScope scope(expressions_, false);
    BATON_ASSIGN_OR_RETURN(statement->body, ParseWholeBody("endwith"));
    return statement;
  }

  // Hugging Face marks the assistant's tokens with it; the text is the body's.
  absl::StatusOr<StatementPtr> ParseGeneration() {
    StatementPtr statement = Make(Type::kScope);
    const bool outer_loop = std::exchange(in_loop_, false);
    const ConditionalScope scope(expressions_, false);
    BATON_ASSIGN_OR_RETURN(statement->body, ParseWholeBody("endgeneration"));
    in_loop_ = outer_loop;
    return statement;
  }

  // Without inheritance a block is its body.
  absl::StatusOr<StatementPtr> ParseNamedBlock() {
    StatementPtr statement = Make(Type::kScope);
    BATON_ASSIGN_OR_RETURN(const std::string name, tokens_.ExpectName("the name of a block"));
    while (tokens_.TakeName("scoped") || tokens_.TakeName("required")) {
    }
    const bool outer_loop = std::exchange(in_loop_, false);
    const ConditionalScope scope(expressions_, false);
    BATON_ASSIGN_OR_RETURN(statement->body, ParseWholeBody("endblock"));
    in_loop_ = outer_loop;
    tokens_.TakeName(name);
    return statement;
  }

  // Escaping is off in chat templates, so only saying so again is possible.
  absl::StatusOr<StatementPtr> ParseAutoescape() {
    StatementPtr statement = Make(Type::kScope);
    BATON_ASSIGN_OR_RETURN(const ExpressionPtr expression, expressions_.ParseExpression());
    if (expression->type != Expression::Type::kConstant || !expression->value.is(Kind::kBool) ||
        expression->value.boolean()) {
      return tokens_.Fail("expected 'autoescape false': escaping is not supported in chat templates");
    }
    BATON_ASSIGN_OR_RETURN(statement->body, ParseWholeBody("endautoescape"));
    return statement;
  }

  absl::StatusOr<StatementPtr> ParseLoopControl(std::string_view name) {
    if (!in_loop_) return tokens_.Fail("expected '", name, "' only inside a for");
    return Make(name == "break" ? Type::kBreak : Type::kContinue);
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int nesting_ = 0;
  bool in_loop_ = false;
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  BATON_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace baton::jinja

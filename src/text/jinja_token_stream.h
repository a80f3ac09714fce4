// The parser's view of a template's tokens: look, take, expect.
//
// Threading: one parser. Errors: InvalidArgument with the line, what was expected and what was found.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_lexer.h"
#include "text/jinja_text.h"

namespace baton::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const { return tokens_[position_ + 1 < tokens_.size() ? position_ + 1 : position_]; }
  int line() const { return current().line; }
  bool At(TokenType type) const { return current().type == type; }
  bool AtName(std::string_view name) const { return At(TokenType::kName) && current().text == name; }
  bool AtAnyName(std::initializer_list<std::string_view> names) const {
    for (const std::string_view name : names) {
      if (AtName(name)) return true;
    }
    return false;
  }
  bool AtOperator(std::string_view text) const { return At(TokenType::kOperator) && current().text == text; }
  // The final token is never passed.
  const Token& Take() { return tokens_[position_ + 1 < tokens_.size() ? position_++ : position_]; }
  bool TakeName(std::string_view name) { return AtName(name) && (Take(), true); }
  bool TakeOperator(std::string_view text) { return AtOperator(text) && (Take(), true); }

  absl::StatusOr<std::string> ExpectName(std::string_view what) {
    if (!At(TokenType::kName)) return Fail("expected ", what, ", found ", Describe());
    return Take().text;
  }
  absl::Status ExpectKeyword(std::string_view name) {
    return TakeName(name) ? absl::OkStatus() : Fail("expected '", name, "', found ", Describe());
  }
  absl::Status ExpectOperator(std::string_view text) {
    return TakeOperator(text) ? absl::OkStatus() : Fail("expected '", text, "', found ", Describe());
  }
  absl::Status Expect(TokenType type, std::string_view what) {
    if (!At(type)) return Fail("expected ", what, ", found ", Describe());
    Take();
    return absl::OkStatus();
  }

  template <typename... Parts>
  absl::Status Fail(const Parts&... parts) const {
    return InvalidArgument("chat template line ", line(), ": ", parts...);
  }

  // The current token, for messages.
  std::string Describe() const {
    switch (current().type) {
      case TokenType::kText:
        return "text";
      case TokenType::kVariableBegin:
        return "'{{'";
      case TokenType::kVariableEnd:
        return "'}}'";
      case TokenType::kBlockBegin:
        return "'{%'";
      case TokenType::kBlockEnd:
        return "'%}'";
      case TokenType::kString:
        return Cat("the string ", QuoteText(std::string_view(current().text).substr(0, 40)));
      case TokenType::kEnd:
        return "the end of the template";
      default:
        return Cat("'", std::string_view(current().text).substr(0, 40), "'");
    }
  }

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
};

}  // namespace baton::jinja

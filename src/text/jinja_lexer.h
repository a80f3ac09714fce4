// Splits a template into text and the tokens inside its tags, with Hugging Face's white space rules: trim_blocks and
// lstrip_blocks are on, `-` and `+` at a tag's ends override them, one newline at the end of the template is dropped.
//
// Threading: a free function. Errors: InvalidArgument with the line. Limits: 1 MiB of template.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace baton::jinja {

enum class TokenType : uint8_t {
  kText,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kDouble,
  kOperator,
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  int line = 1;
  std::string text;  // text, name, operator, or the value of a string
  int64_t integer = 0;
  double number = 0;
};

// Ends with a kEnd token.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace baton::jinja

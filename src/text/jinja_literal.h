// Number and string literals of templates, which are Python's.
//
// Threading: free functions. Errors: InvalidArgument with the line. Limits: integers of 64 bits.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace baton::jinja {

struct NumberLiteral {
  size_t length = 0;  // bytes
  bool is_integer = true;
  int64_t integer = 0;
  double number = 0;
};

// The number at the start of `text`, which begins with a digit. Without `allow_fraction` (after a dot: `list.0.name`)
// only an integer is read.
absl::StatusOr<NumberLiteral> ReadNumberLiteral(std::string_view text, bool allow_fraction, int line);

// The value of a string literal's inside.
absl::StatusOr<std::string> UnescapeString(std::string_view text, int line);

}  // namespace baton::jinja

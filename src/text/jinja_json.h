// JSON text to values, and back as Python's json.dumps writes it.
//
// Threading: free functions. Errors: InvalidArgument with what was wrong and where.
// Limits: 100 levels of nesting; integers beyond 64 bits become floats.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "text/jinja_runtime.h"

namespace baton::jinja {

// `what` names the text in error messages: "messages".
absl::StatusOr<Value> ParseJson(std::string_view text, std::string_view what);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one level of it; none: everything in one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

absl::StatusOr<std::string> WriteJson(Runtime& runtime, const Value& value, const JsonStyle& style);

}  // namespace baton::jinja

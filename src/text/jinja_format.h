// Python's two ways to format text: "%s and %d" % (a, b), and "{} and {name}".format(a, name=b).
//
// Threading: a value's own rules. Errors: InvalidArgument where Python raises.
// Limits: widths and precisions of at most 10000.
#pragma once

#include <string_view>

#include "text/jinja_runtime.h"

namespace baton::jinja {

// `values`: a tuple, a dict, or the only value.
absl::StatusOr<Value> FormatPercent(Runtime& runtime, std::string_view format, const Value& values);
absl::StatusOr<Value> FormatBraces(Runtime& runtime, std::string_view format, const Arguments& arguments);

// How one value is laid out, after either notation was read.
struct FormatSpec {
  char32_t fill = ' ';
  char align = 0;   // < > ^ = or 0: the type's own
  char sign = '-';  // - + or space
  bool alternate = false;
  char separator = 0;  // , or _ between groups of digits
  int width = 0;
  int precision = -1;
  char type = 0;
};
absl::StatusOr<std::string> FormatNumber(const Value& value, const FormatSpec& spec);
absl::StatusOr<std::string> FormatText(std::string_view text, const FormatSpec& spec);

}  // namespace baton::jinja

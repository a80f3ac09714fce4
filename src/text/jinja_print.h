// Values as text: Python's str() and repr().
//
// Threading: a value's own rules. Errors: InvalidArgument where the text passes the runtime's limit.
#pragma once

#include <string>

#include "text/jinja_runtime.h"

namespace baton::jinja {

absl::StatusOr<std::string> ToText(Runtime& runtime, const Value& value);
absl::StatusOr<std::string> ToRepr(Runtime& runtime, const Value& value);

}  // namespace baton::jinja

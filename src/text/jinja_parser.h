// Parses a template into its syntax tree (Jinja 3.1's grammar with the loop controls; no includes or inheritance).
//
// Threading: a free function. Errors: InvalidArgument with the line, what was expected and what was found.
// Limits: 100 nested statements, expressions 200 deep.
#pragma once

#include <string_view>

#include "text/jinja_ast.h"

namespace baton::jinja {

absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace baton::jinja

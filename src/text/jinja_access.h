// How templates reach into values: `value.name` and `value[key]`, with the sandbox's rules.
//
// Threading: a value's own rules. Errors: none; what is not there, or not allowed, is undefined.
#pragma once

#include <string_view>

#include "text/jinja_value.h"

namespace baton::jinja {

// `value.name`: a method or attribute, else the item of that name.
Value GetAttribute(const Value& value, std::string_view name);
// `value[key]`: the item, else the method or attribute of that name.
Value GetItem(const Value& value, const Value& key);
// A method or attribute only.
Value GetOwnAttribute(const Value& value, std::string_view name);

}  // namespace baton::jinja

// What Python's operators do with the values of a template.
//
// Threading: a value's own rules (jinja_value.h). Errors: InvalidArgument for operands that Python refuses, and for
// exceeded limits; integers that leave 64 bits are refused too.
#pragma once

#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_runtime.h"

namespace baton::jinja {

// Python's bool(value).
bool IsTrue(const Value& value);
absl::StatusOr<bool> AreEqual(Runtime& runtime, const Value& a, const Value& b);
absl::StatusOr<bool> IsLess(Runtime& runtime, const Value& a, const Value& b);
// `item in container`.
absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item);
absl::StatusOr<bool> Compare(Runtime& runtime, Operator op, const Value& a, const Value& b);
// + - * / // % **
absl::StatusOr<Value> Calculate(Runtime& runtime, Operator op, const Value& a, const Value& b);
absl::StatusOr<Value> Negate(const Value& value, bool positive);

// len(value).
absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value);
// Every item of an iterable, as `for` would see it. Empties a generator.
absl::StatusOr<std::vector<Value>> Iterate(Runtime& runtime, const Value& value);
// value[start:stop:step]; undefined or None where a part is missing.
absl::StatusOr<Value> Slice(Runtime& runtime, const Value& value, const Value& start, const Value& stop,
                            const Value& step);
// The places of `keys` in a stable ascending (`reverse`: descending) order.
absl::StatusOr<std::vector<size_t>> SortedOrder(Runtime& runtime, const std::vector<Value>& keys, bool reverse);
// An undefined value was used: its own message, as an error.
absl::Status UndefinedError(const Value& value);

}  // namespace baton::jinja

// What may follow `is`: Predicates of jinja_builtins.h.
#include <array>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_print.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

template <Kind kind>
Result IsKind(Runtime&, Values& a) {
  return Value::Bool(a[0].is(kind));
}

Result IsDefined(Runtime&, Values& a) { return Value::Bool(!a[0].is_undefined()); }
Result IsTrueValue(Runtime&, Values& a) { return Value::Bool(a[0].is(Kind::kBool) && a[0].boolean()); }
Result IsFalseValue(Runtime&, Values& a) { return Value::Bool(a[0].is(Kind::kBool) && !a[0].boolean()); }
Result IsNumber(Runtime&, Values& a) { return Value::Bool(a[0].is_number()); }

// An undefined value can be iterated over (there is nothing in it) and called (which fails).
Result IsIterable(Runtime&, Values& a) {
  const Value& value = a[0];
  return Value::Bool(value.is_undefined() || value.is_string() || value.is_sequence() || value.is_dict() ||
                     value.is(Kind::kGenerator) || value.is(Kind::kLoop));
}

Result IsSequence(Runtime&, Values& a) {
  const Value& value = a[0];
  return Value::Bool(value.is_undefined() || value.is_string() || value.is_dict() ||
                     (value.is_sequence() && !value.is(Kind::kDictView)));
}

Result IsCallable(Runtime&, Values& a) {
  return Value::Bool(a[0].is_undefined() || a[0].is(Kind::kCallable) || a[0].is(Kind::kLoop));
}

Result IsSameAs(Runtime&, Values& a) {
  // Small integers and the strings of one template are one object to Python.
  if (a[0].is_string() && a[1].is_string()) return Value::Bool(a[0].string() == a[1].string());
  return Value::Bool(a[0].IsSameObject(a[1]));
}

Result Remainder(Runtime& runtime, const Value& value, int64_t divisor, int64_t wanted) {
  BATON_ASSIGN_OR_RETURN(const Value rest, Calculate(runtime, Operator::kModulo, value, Value::Integer(divisor)));
  return Value::Bool(rest.is_number() && rest.number() == static_cast<double>(wanted));
}

Result IsOdd(Runtime& runtime, Values& a) { return Remainder(runtime, a[0], 2, 1); }
Result IsEven(Runtime& runtime, Values& a) { return Remainder(runtime, a[0], 2, 0); }
Result IsDivisible(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const Value rest, Calculate(runtime, Operator::kModulo, a[0], a[1]));
  return Value::Bool(rest.is_number() && rest.number() == 0);
}

// str.islower() and str.isupper(): some letter has the case, and none the other.
Result HasOnlyCase(Runtime& runtime, const Value& value, bool (*wanted)(char32_t), bool (*other)(char32_t)) {
  BATON_ASSIGN_OR_RETURN(const std::string text, ToText(runtime, value));
  bool found = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = DecodeCodePoint(text, position);
    if (other(c)) return Value::Bool(false);
    found |= wanted(c);
  }
  return Value::Bool(found);
}

Result IsLowerText(Runtime& runtime, Values& a) { return HasOnlyCase(runtime, a[0], IsLower, IsUpper); }
Result IsUpperText(Runtime& runtime, Values& a) { return HasOnlyCase(runtime, a[0], IsUpper, IsLower); }

template <Operator op>
Result Compares(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const bool result, Compare(runtime, op, a[0], a[1]));
  return Value::Bool(result);
}

Result IsFilter(Runtime&, Values& a) { return Value::Bool(a[0].is_string() && HasFilter(a[0].string())); }
Result IsTest(Runtime&, Values& a) { return Value::Bool(a[0].is_string() && HasTest(a[0].string())); }
Result IsEscaped(Runtime&, Values&) { return Value::Bool(false); }

constexpr std::array kTests = {
    Builtin{"defined", "value", IsDefined},
    Builtin{"undefined", "value", IsKind<Kind::kUndefined>},
    Builtin{"none", "value", IsKind<Kind::kNone>},
    Builtin{"boolean", "value", IsKind<Kind::kBool>},
    Builtin{"true", "value", IsTrueValue},
    Builtin{"false", "value", IsFalseValue},
    Builtin{"integer", "value", IsKind<Kind::kInteger>},
    Builtin{"float", "value", IsKind<Kind::kDouble>},
    Builtin{"number", "value", IsNumber},
    Builtin{"string", "value", IsKind<Kind::kString>},
    Builtin{"mapping", "value", IsKind<Kind::kDict>},
    Builtin{"iterable", "value", IsIterable},
    Builtin{"sequence", "value", IsSequence},
    Builtin{"callable", "/obj", IsCallable},
    Builtin{"sameas", "value other", IsSameAs},
    Builtin{"escaped", "value", IsEscaped},
    Builtin{"filter", "value", IsFilter},
    Builtin{"test", "value", IsTest},
    Builtin{"odd", "value", IsOdd},
    Builtin{"even", "value", IsEven},
    Builtin{"divisibleby", "value num", IsDivisible},
    Builtin{"lower", "value", IsLowerText},
    Builtin{"upper", "value", IsUpperText},
    Builtin{"in", "value seq", Compares<Operator::kIn>},
    Builtin{"==", "/a b", Compares<Operator::kEqual>},
    Builtin{"eq", "/a b", Compares<Operator::kEqual>},
    Builtin{"equalto", "/a b", Compares<Operator::kEqual>},
    Builtin{"!=", "/a b", Compares<Operator::kNotEqual>},
    Builtin{"ne", "/a b", Compares<Operator::kNotEqual>},
    Builtin{"<", "/a b", Compares<Operator::kLess>},
    Builtin{"lt", "/a b", Compares<Operator::kLess>},
    Builtin{"lessthan", "/a b", Compares<Operator::kLess>},
    Builtin{"<=", "/a b", Compares<Operator::kLessEqual>},
    Builtin{"le", "/a b", Compares<Operator::kLessEqual>},
    Builtin{">", "/a b", Compares<Operator::kGreater>},
    Builtin{"gt", "/a b", Compares<Operator::kGreater>},
    Builtin{"greaterthan", "/a b", Compares<Operator::kGreater>},
    Builtin{">=", "/a b", Compares<Operator::kGreaterEqual>},
    Builtin{"ge", "/a b", Compares<Operator::kGreaterEqual>},
};

}  // namespace

std::span<const Builtin> Predicates() { return kTests; }

}  // namespace baton::jinja

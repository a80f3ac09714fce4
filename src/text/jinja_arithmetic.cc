// Calculate and Negate of jinja_operators.h.
#include <cmath>

#include "text/jinja_format.h"
#include "text/jinja_operators.h"

namespace baton::jinja {

namespace {

absl::Status Overflow() { return InvalidArgument("an integer leaves the range of 64 bits"); }

std::string_view SymbolOf(Operator op) {
  constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};
  return kSymbols[static_cast<size_t>(op)];
}

absl::Status Unsupported(Operator op, const Value& a, const Value& b) {
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  return InvalidArgument("unsupported operands for ", SymbolOf(op), ": ", a.TypeName(), " and ", b.TypeName());
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return InvalidArgument("0 can't be raised to a negative power");
    return Value::Double(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Integer(result);
}

// Python rounds quotients down and gives remainders the sign of the divisor.
absl::StatusOr<Value> IntegerDivision(Operator op, int64_t a, int64_t b) {
  if (b == 0) return InvalidArgument("division by zero");
  if (op == Operator::kDivide) return Value::Double(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {
    if (op == Operator::kModulo) return Value::Integer(0);
    int64_t negated = 0;
    if (__builtin_sub_overflow(int64_t{0}, a, &negated)) return Overflow();
    return Value::Integer(negated);
  }
  int64_t quotient = a / b;
  int64_t remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {
    remainder += b;
    --quotient;
  }
  return Value::Integer(op == Operator::kModulo ? remainder : quotient);
}

absl::StatusOr<Value> CalculateIntegers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Operator::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Operator::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Operator::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Operator::kPower:
      return IntegerPower(a, b);
    default:
      return IntegerDivision(op, a, b);
  }
  if (overflow) return Overflow();
  return Value::Integer(result);
}

absl::StatusOr<Value> DoublePower(double a, double b) {
  if (a == 0 && b < 0) return InvalidArgument("0.0 can't be raised to a negative power");
  if (a < 0 && std::isfinite(b) && b != std::floor(b)) return InvalidArgument("complex numbers are not supported");
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) return InvalidArgument("a power is out of range");
  return Value::Double(result);
}

double FloorModulo(double a, double b) {
  double remainder = std::fmod(a, b);
  if (remainder == 0) return std::copysign(0.0, b);
  return (remainder < 0) != (b < 0) ? remainder + b : remainder;
}

double FloorDivide(double a, double b) {
  const double quotient = (a - FloorModulo(a, b)) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

absl::StatusOr<Value> CalculateDoubles(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Double(a + b);
    case Operator::kSubtract:
      return Value::Double(a - b);
    case Operator::kMultiply:
      return Value::Double(a * b);
    case Operator::kPower:
      return DoublePower(a, b);
    default:
      break;
  }
  if (b == 0) return InvalidArgument("division by zero");
  if (op == Operator::kDivide) return Value::Double(a / b);
  return Value::Double(op == Operator::kModulo ? FloorModulo(a, b) : FloorDivide(a, b));
}

absl::StatusOr<Value> Repeat(Runtime& runtime, const Value& value, int64_t times) {
  const size_t size = value.is_string() ? value.string().size() : value.items().size();
  const auto count = static_cast<size_t>(times < 0 ? 0 : times);
  size_t total = 0;
  if (__builtin_mul_overflow(size, count, &total)) total = ~size_t{0} / 4;
  if (value.is_string()) {
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(total));
    std::string text;
    text.reserve(total);
    for (size_t i = 0; i < count && size > 0; ++i) text += value.string();
    return Value::String(std::move(text));
  }
  BATON_RETURN_IF_ERROR(runtime.Charge(total));
  std::vector<Value> items;
  for (size_t i = 0; i < count && size > 0; ++i) items.insert(items.end(), value.items().begin(), value.items().end());
  return value.is(Kind::kList) ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

bool IsRepeatable(const Value& value) { return value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple); }

absl::StatusOr<Value> Concatenate(Runtime& runtime, const Value& a, const Value& b) {
  if (a.is_string()) {
    BATON_RETURN_IF_ERROR(runtime.ChargeBytes(a.string().size() + b.string().size()));
    return Value::String(a.string() + b.string());
  }
  BATON_RETURN_IF_ERROR(runtime.Charge(a.items().size() + b.items().size()));
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Kind::kList) ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

}  // namespace

absl::StatusOr<Value> Calculate(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return CalculateIntegers(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return CalculateDoubles(op, a.number(), b.number());
  if (op == Operator::kAdd && a.kind() == b.kind() && IsRepeatable(a)) return Concatenate(runtime, a, b);
  if (op == Operator::kMultiply && IsRepeatable(a) && b.is_integral()) return Repeat(runtime, a, b.integer());
  if (op == Operator::kMultiply && IsRepeatable(b) && a.is_integral()) return Repeat(runtime, b, a.integer());
  if (op == Operator::kModulo && a.is_string()) return FormatPercent(runtime, a.string(), b);
  return Unsupported(op, a, b);
}

absl::StatusOr<Value> Negate(const Value& value, bool positive) {
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_number()) return InvalidArgument("expected a number after a sign, found ", value.TypeName());
  if (value.is(Kind::kDouble)) return Value::Double(positive ? value.number() : -value.number());
  if (positive) return Value::Integer(value.integer());
  return CalculateIntegers(Operator::kSubtract, 0, value.integer());
}

}  // namespace baton::jinja

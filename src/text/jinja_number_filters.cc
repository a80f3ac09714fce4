// Filters that make numbers: NumberFilters of jinja_builtins.h.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "text/jinja_builtins.h"
#include "text/jinja_operators.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

using Values = std::vector<Value>;
using Result = absl::StatusOr<Value>;

// Without the single underscores that Python allows between digits; nothing where they stand elsewhere.
std::optional<std::string> WithoutUnderscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i]);
    } else if (i == 0 || i + 1 == text.size() || std::isalnum(static_cast<unsigned char>(text[i - 1])) == 0 ||
               std::isalnum(static_cast<unsigned char>(text[i + 1])) == 0) {
      return std::nullopt;
    }
  }
  return out;
}

// Python's int(text, base). Nothing: not a number, or one beyond 64 bits.
std::optional<int64_t> ParseInteger(std::string_view text, int64_t base) {
  text = Strip(text);
  bool negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  if (text.size() > 1 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      base = marked;
      text.remove_prefix(text.size() > 2 && text[2] == '_' ? 3 : 2);
    }
  }
  std::optional<std::string> digits = WithoutUnderscores(text);
  if (base == 0) {
    base = 10;
    if (digits.has_value() && digits->size() > 1 && (*digits)[0] == '0' &&
        digits->find_first_not_of('0') != std::string::npos) {
      return std::nullopt;
    }
  }
  if (!digits.has_value() || digits->empty() || std::isalnum(static_cast<unsigned char>((*digits)[0])) == 0) {
    return std::nullopt;
  }
  if (negative) digits->insert(digits->begin(), '-');
  int64_t value = 0;
  const char* end = digits->data() + digits->size();
  const auto [stop, error] = std::from_chars(digits->data(), end, value, static_cast<int>(base));
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

// Python's float(text).
std::optional<double> ParseDouble(std::string_view text) {
  text = Strip(text);
  const std::optional<std::string> plain = WithoutUnderscores(text);
  if (!plain.has_value() || plain->empty()) return std::nullopt;
  std::string_view digits = *plain;
  const bool has_sign = digits[0] == '-' || digits[0] == '+';
  const double sign = digits[0] == '-' ? -1 : 1;
  if (has_sign) digits.remove_prefix(1);
  if (digits.empty() || digits[0] == '-' || digits[0] == '+') return std::nullopt;
  const std::string lower = ToLower(digits);
  if (lower == "inf" || lower == "infinity") return sign * INFINITY;
  if (lower == "nan") return NAN;
  if (std::isdigit(static_cast<unsigned char>(digits[0])) == 0 && digits[0] != '.') return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (end != digits.data() + digits.size()) return std::nullopt;
  // Out of range: strtod says whether it is zero or infinity.
  if (error == std::errc::result_out_of_range) value = std::strtod(lower.c_str(), nullptr);
  return sign * value;
}

std::optional<int64_t> TruncateDouble(double value) {
  if (!std::isfinite(value) || std::fabs(value) >= 9.2e18) return std::nullopt;
  return static_cast<int64_t>(std::trunc(value));
}

Result Int(Runtime&, Values& a) {
  if (a[0].is_undefined()) return UndefinedError(a[0]);
  if (a[0].is_integral()) return Value::Integer(a[0].integer());
  std::optional<int64_t> value;
  if (a[0].is_string()) {
    if (!a[2].is_integral()) return InvalidArgument("int expects a base, found ", a[2].TypeName());
    const int64_t base = a[2].integer();
    if (base == 0 || (base >= 2 && base <= 36)) value = ParseInteger(a[0].string(), base);
    if (!value.has_value()) {
      const std::optional<double> number = ParseDouble(a[0].string());
      if (number.has_value()) value = TruncateDouble(*number);
    }
  } else if (a[0].is(Kind::kDouble)) {
    if (std::isinf(a[0].number())) return InvalidArgument("an infinite float can't become an int");
    value = TruncateDouble(a[0].number());
  }
  return value.has_value() ? Value::Integer(*value) : a[1];
}

Result Float(Runtime&, Values& a) {
  if (a[0].is_undefined()) return UndefinedError(a[0]);
  const Value fallback = a[1].is_undefined() ? Value::Double(0) : a[1];
  if (a[0].is_number()) return Value::Double(a[0].number());
  if (!a[0].is_string()) return fallback;
  const std::optional<double> value = ParseDouble(a[0].string());
  return value.has_value() ? Value::Double(*value) : fallback;
}

Result Abs(Runtime&, Values& a) {
  if (a[0].is_undefined()) return UndefinedError(a[0]);
  if (!a[0].is_number()) return InvalidArgument("abs expects a number, found ", a[0].TypeName());
  if (a[0].is(Kind::kDouble)) return Value::Double(std::fabs(a[0].number()));
  return a[0].integer() < 0 ? Negate(a[0], false) : Result(Value::Integer(a[0].integer()));
}

// Python's round(): exact in decimal, ties to even.
double RoundDouble(double value, int64_t digits) {
  if (!std::isfinite(value) || digits > 320) return value;
  if (digits < 0) {
    const double scale = std::pow(10.0, static_cast<double>(-digits));
    return std::isinf(scale) ? std::copysign(0.0, value) : std::nearbyint(value / scale) * scale;
  }
  char buffer[800];
  std::snprintf(buffer, sizeof(buffer), "%.*f", static_cast<int>(digits), value);
  return std::strtod(buffer, nullptr);
}

Result RoundInteger(int64_t value, int64_t digits) {
  if (digits >= 0) return Value::Integer(value);
  if (digits < -18) return Value::Integer(0);
  int64_t scale = 1;
  for (int64_t i = 0; i < -digits; ++i) scale *= 10;
  int64_t quotient = value / scale;
  const int64_t twice = std::abs(value % scale) * 2;
  if (twice > scale || (twice == scale && quotient % 2 != 0)) quotient += value < 0 ? -1 : 1;
  int64_t rounded = 0;
  if (__builtin_mul_overflow(quotient, scale, &rounded)) return InvalidArgument("round leaves the range of 64 bits");
  return Value::Integer(rounded);
}

Result Round(Runtime&, Values& a) {
  if (a[0].is_undefined()) return UndefinedError(a[0]);
  if (!a[0].is_number()) return InvalidArgument("round expects a number, found ", a[0].TypeName());
  if (!a[1].is_integral()) return InvalidArgument("round expects an int as precision, found ", a[1].TypeName());
  const int64_t digits = a[1].integer();
  const std::string method = a[2].is_undefined() ? "common" : a[2].is_string() ? a[2].string() : "";
  if (method == "common") {
    if (a[0].is_integral()) return RoundInteger(a[0].integer(), digits);
    return Value::Double(RoundDouble(a[0].number(), digits));
  }
  if (method != "ceil" && method != "floor") return InvalidArgument("round expects 'common', 'ceil' or 'floor'");
  if (digits < -18 || digits > 18) return InvalidArgument("round expects a precision between -18 and 18");
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = a[0].number() * scale;
  return Value::Double((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Result Sum(Runtime& runtime, Values& a) {
  BATON_ASSIGN_OR_RETURN(const std::vector<Value> items, Iterate(runtime, a[0]));
  if (a[2].is_string()) return InvalidArgument("sum can't add strings; use join");
  Value total = a[2];
  for (const Value& item : items) {
    BATON_ASSIGN_OR_RETURN(const Value value, FollowPath(item, a[1]));
    BATON_ASSIGN_OR_RETURN(total, Calculate(runtime, Operator::kAdd, total, value));
  }
  return total;
}

constexpr std::array kFilters = {
    Builtin{"int", "value default=0 base=10", Int},
    Builtin{"float", "value default=?", Float},
    Builtin{"abs", "x", Abs},
    Builtin{"round", "value precision=0 method=?", Round},
    Builtin{"sum", "iterable attribute=none start=0", Sum},
};

}  // namespace

std::span<const Builtin> NumberFilters() { return kFilters; }

}  // namespace baton::jinja

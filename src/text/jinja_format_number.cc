// FormatNumber and FormatText of jinja_format.h.
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>

#include "text/jinja_format.h"
#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

std::string Padding(char32_t fill, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) AppendCodePoint(out, fill);
  return out;
}

// `prefix` is a sign or 0x; `align` '=' pads after it.
std::string Pad(const std::string& prefix, const std::string& body, const FormatSpec& spec, char default_align) {
  const size_t length = CountCodePoints(prefix) + CountCodePoints(body);
  const auto width = static_cast<size_t>(spec.width);
  if (length >= width) return prefix + body;
  const size_t missing = width - length;
  switch (spec.align == 0 ? default_align : spec.align) {
    case '<':
      return prefix + body + Padding(spec.fill, missing);
    case '^':
      return Padding(spec.fill, missing / 2) + prefix + body + Padding(spec.fill, missing - missing / 2);
    case '=':
      return prefix + Padding(spec.fill, missing) + body;
    default:
      return Padding(spec.fill, missing) + prefix + body;
  }
}

// Commas (or what `separator` is) between groups of three digits of the integer part.
std::string GroupDigits(const std::string& digits, char separator) {
  if (separator == 0) return digits;
  const auto stop = static_cast<size_t>(
      std::find_if(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) == 0; }) -
      digits.begin());
  std::string out;
  for (size_t i = 0; i < stop; ++i) {
    if (i > 0 && (stop - i) % 3 == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out + digits.substr(stop);
}

std::string SignOf(bool negative, char sign) {
  if (negative) return "-";
  return sign == '-' ? "" : std::string(1, sign);
}

std::string DigitsOf(uint64_t value, unsigned base, bool upper) {
  std::string out;
  do {
    out.push_back((upper ? "0123456789ABCDEF" : "0123456789abcdef")[value % base]);
    value /= base;
  } while (value > 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string FormatInteger(int64_t value, const FormatSpec& spec) {
  const uint64_t magnitude = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  const unsigned base = spec.type == 'x' || spec.type == 'X' ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
  std::string prefix = SignOf(value < 0, spec.sign);
  if (spec.alternate && base != 10) prefix += {'0', spec.type};
  return Pad(prefix, GroupDigits(DigitsOf(magnitude, base, spec.type == 'X'), spec.separator), spec, '>');
}

std::string PrintDouble(double magnitude, const FormatSpec& spec) {
  if (!std::isfinite(magnitude)) {
    const bool upper = std::isupper(static_cast<unsigned char>(spec.type)) != 0;
    return std::isnan(magnitude) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf");
  }
  if (spec.type == 0 && spec.precision < 0) return FormatDouble(magnitude);
  const char type = spec.type == '%' ? 'f' : spec.type == 0 || spec.type == 'n' ? 'g' : spec.type;
  const char format[] = {'%', '.', '*', type, '\0'};
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  std::string out(static_cast<size_t>(precision) + 400, '\0');
  const int length =
      std::snprintf(out.data(), out.size(), format, precision, spec.type == '%' ? magnitude * 100 : magnitude);
  out.resize(static_cast<size_t>(std::max(length, 0)));
  if (spec.type == 0 && out.find_first_of(".e") == out.npos) out += ".0";
  return spec.type == '%' ? out + "%" : out;
}

}  // namespace

absl::StatusOr<std::string> FormatNumber(const Value& value, const FormatSpec& spec) {
  constexpr std::string_view kIntegerTypes = "bcdoxX";
  if (spec.type == 's') return InvalidArgument("the format type 's' wants str, found ", value.TypeName());
  const bool integer_type = spec.type == 0 || spec.type == 'n' || kIntegerTypes.find(spec.type) != kIntegerTypes.npos;
  if (value.is_integral() && integer_type) {
    if (spec.precision >= 0) return InvalidArgument("a precision is not allowed for an int in a format");
    if (spec.type == 'c') return InvalidArgument("the format type 'c' is not supported");
    return FormatInteger(value.integer(), spec);
  }
  if (kIntegerTypes.find(spec.type) != kIntegerTypes.npos) {
    return InvalidArgument("the format type '", spec.type, "' wants int, found float");
  }
  const double number = value.number();
  const bool negative = std::signbit(number) && !std::isnan(number);
  const std::string digits = GroupDigits(PrintDouble(std::fabs(number), spec), spec.separator);
  return Pad(SignOf(negative, spec.sign), digits, spec, '>');
}

absl::StatusOr<std::string> FormatText(std::string_view text, const FormatSpec& spec) {
  if (spec.type != 0 && spec.type != 's') {
    return InvalidArgument("the format type '", spec.type, "' wants a number, found str");
  }
  if (spec.align == '=') return InvalidArgument("'=' and '0' in a format are for numbers, found str");
  if (spec.precision < 0) return Pad("", std::string(text), spec, '<');
  const std::u32string characters = ToCodePoints(text).substr(0, static_cast<size_t>(spec.precision));
  return Pad("", FromCodePoints(characters), spec, '<');
}

}  // namespace baton::jinja

#include "text/jinja_literal.h"

#include <charconv>

#include "text/jinja_text.h"

namespace baton::jinja {

namespace {

int DigitValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

// Digits of `base` with single underscores between them; returns where they end.
size_t MatchDigits(std::string_view text, size_t position, int base, bool leading_underscore = false) {
  size_t end = position;
  for (size_t i = position; i < text.size();) {
    if (text[i] == '_' && (i > position || leading_underscore)) ++i;
    if (i >= text.size() || DigitValue(text[i]) >= base) break;
    end = ++i;
  }
  return end;
}

std::string WithoutUnderscores(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != '_') out.push_back(c);
  }
  return out;
}

// Where the fraction and exponent after an integer part end; the same position if there are none.
size_t MatchFraction(std::string_view text, size_t position) {
  size_t end = position;
  if (position < text.size() && text[position] == '.') end = MatchDigits(text, position + 1, 10);
  if (end == position + 1) end = position;  // a dot without digits is an attribute's
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    size_t exponent = end + 1;
    if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
    const size_t exponent_end = MatchDigits(text, exponent, 10);
    if (exponent_end > exponent) end = exponent_end;
  }
  return end;
}

absl::StatusOr<NumberLiteral> ReadInteger(std::string_view digits, size_t length, int base, int line) {
  NumberLiteral literal{.length = length};
  const std::string plain = WithoutUnderscores(digits);
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), literal.integer, base);
  if (error != std::errc()) {
    return InvalidArgument("chat template line ", line, ": expected an integer of 64 bits, found ", plain);
  }
  return literal;
}

// The code point of `digits` hexadecimal digits at `position`.
absl::StatusOr<char32_t> ReadHex(std::string_view text, size_t position, size_t digits, int line) {
  char32_t value = 0;
  for (size_t i = 0; i < digits; ++i) {
    const int digit = position + i < text.size() ? DigitValue(text[position + i]) : 99;
    if (digit >= 16) {
      return InvalidArgument("chat template line ", line, ": expected ", digits, " hexadecimal digits in an escape");
    }
    value = value << 4 | static_cast<char32_t>(digit);
  }
  if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
    return InvalidArgument("chat template line ", line, ": an escape names no character");
  }
  return value;
}

// The escape whose letter stands at `position`, which moves past it.
absl::Status AppendEscape(std::string_view text, size_t& position, int line, std::string& out) {
  constexpr std::string_view kLetters = "abfnrtv\\'\"";
  constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
  const char c = text[position++];
  if (const size_t found = kLetters.find(c); found != kLetters.npos) {
    out.push_back(kMeanings[found]);
  } else if (c == 'x' || c == 'u' || c == 'U') {
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
    BATON_ASSIGN_OR_RETURN(const char32_t value, ReadHex(text, position, digits, line));
    AppendCodePoint(out, value);
    position += digits;
  } else if (c >= '0' && c <= '7') {
    char32_t value = static_cast<char32_t>(c - '0');
    for (int i = 0; i < 2 && position < text.size() && text[position] >= '0' && text[position] <= '7'; ++i) {
      value = value << 3 | static_cast<char32_t>(text[position++] - '0');
    }
    AppendCodePoint(out, value);
  } else if (c == 'N') {
    return InvalidArgument("chat template line ", line, ": escapes by character name (\\N) are not supported; use \\u");
  } else if (c != '\n') {  // an escaped newline vanishes; an unknown escape stays as it is
    out.push_back('\\');
    out.push_back(c);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<NumberLiteral> ReadNumberLiteral(std::string_view text, bool allow_fraction, int line) {
  const size_t whole = MatchDigits(text, 0, 10);
  const size_t end = allow_fraction ? MatchFraction(text, whole) : whole;
  if (end > whole) {
    NumberLiteral literal{.length = end, .is_integer = false};
    const std::string plain = WithoutUnderscores(text.substr(0, end));
    const auto [stop, error] = std::from_chars(plain.data(), plain.data() + plain.size(), literal.number);
    if (error != std::errc()) return InvalidArgument("chat template line ", line, ": ", plain, " is out of range");
    return literal;
  }
  if (text[0] != '0') return ReadInteger(text.substr(0, whole), whole, 10, line);
  const char mark = text.size() > 1 ? static_cast<char>(text[1] | 0x20) : ' ';
  const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
  if (base != 0) {
    const size_t stop = MatchDigits(text, 2, base, true);
    if (stop > 2) return ReadInteger(text.substr(2, stop - 2), stop, base, line);
  }
  size_t zeros = 1;  // Python allows no other number to start with a zero
  while (zeros < text.size() && (text[zeros] == '0' || (text[zeros] == '_' && text.substr(zeros + 1, 1) == "0"))) {
    ++zeros;
  }
  return NumberLiteral{.length = zeros};
}

absl::StatusOr<std::string> UnescapeString(std::string_view text, int line) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    if (text[position] != '\\' || position + 1 >= text.size()) {
      out.push_back(text[position++]);
      continue;
    }
    ++position;
    BATON_RETURN_IF_ERROR(AppendEscape(text, position, line, out));
  }
  return out;
}

}  // namespace baton::jinja

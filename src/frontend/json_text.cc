#include "frontend/json_text.h"

#include <charconv>
#include <cmath>

#include "text/unicode.h"

namespace baton {
namespace {

bool IsPlain(unsigned char c) { return c >= 0x20 && c < 0x80 && c != '"' && c != '\\'; }

void AppendEscape(std::string& out, unsigned char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      return;
    case '\\':
      out += "\\\\";
      return;
    case '\n':
      out += "\\n";
      return;
    case '\r':
      out += "\\r";
      return;
    case '\t':
      out += "\\t";
      return;
    default:
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\u00";
      out += kHex[c >> 4];
      out += kHex[c & 15];
  }
}

// The shortest digits that read back as the same number.
template <typename Float>
void AppendFloat(std::string& out, Float number) {
  if (!std::isfinite(number)) {
    out += "null";
    return;
  }
  char digits[32];
  const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), number);
  out.append(digits, end);
}

}  // namespace

void AppendJsonEscaped(std::string& out, std::string_view text) {
  while (!text.empty()) {
    size_t plain = 0;
    while (plain < text.size() && IsPlain(static_cast<unsigned char>(text[plain]))) ++plain;
    out.append(text.substr(0, plain));
    text.remove_prefix(plain);
    if (text.empty()) return;
    if (static_cast<unsigned char>(text[0]) < 0x80) {
      AppendEscape(out, static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
      continue;
    }
    const CodePoint code = DecodeUtf8(text);
    if (code.valid) {
      out.append(text.substr(0, static_cast<size_t>(code.bytes)));
    } else {
      out += "\xef\xbf\xbd";
    }
    text.remove_prefix(static_cast<size_t>(code.bytes));
  }
}

void AppendJsonString(std::string& out, std::string_view text) {
  out += '"';
  AppendJsonEscaped(out, text);
  out += '"';
}

void AppendJsonNumber(std::string& out, double number) { AppendFloat(out, number); }

void AppendJsonNumber(std::string& out, float number) { AppendFloat(out, number); }

void AppendJsonNumber(std::string& out, int64_t number) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), number);
  out.append(digits, end);
}

void AppendJsonTokens(std::string& out, std::span<const TokenId> tokens) {
  out += '[';
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    AppendJsonNumber(out, static_cast<int64_t>(tokens[i]));
  }
  out += ']';
}

}  // namespace baton

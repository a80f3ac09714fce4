#include "text/jinja_text.h"

#include <locale.h>
#include <string.h>
#include <wctype.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace baton::jinja {

namespace {

constexpr char32_t kReplacement = 0xFFFD;

// Bytes of the sequence that starts with `lead`, or 0 where none may.
size_t SequenceLength(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) return 2;
  if (lead >= 0xE0 && lead < 0xF0) return 3;
  if (lead >= 0xF0 && lead < 0xF5) return 4;
  return 0;
}

// One well-formed code point, or false with `length` bytes to skip.
bool TryDecode(std::string_view text, size_t position, char32_t& code_point, size_t& length) {
  const auto lead = static_cast<unsigned char>(text[position]);
  length = SequenceLength(lead);
  if (length == 0 || position + length > text.size()) {
    length = 1;
    return false;
  }
  code_point = length == 1 ? lead : lead & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto next = static_cast<unsigned char>(text[position + i]);
    if ((next & 0xC0) != 0x80) {
      length = 1;
      return false;
    }
    code_point = code_point << 6 | (next & 0x3F);
  }
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
  if (code_point >= kSmallest[length] && code_point <= 0x10FFFF && !surrogate) return true;
  length = 1;
  return false;
}

// A set of characters in PCRE2's notation (the Unicode version is that library's).
class CharacterClass {
 public:
  explicit CharacterClass(const char* pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, nullptr);
  }
  ~CharacterClass() { pcre2_code_free(code_); }
  CharacterClass(const CharacterClass&) = delete;
  CharacterClass& operator=(const CharacterClass&) = delete;

  bool Contains(char32_t code_point) const {
    std::string text;
    AppendCodePoint(text, code_point);
    const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(pcre2_match_data_create(1, nullptr),
                                                                                    &pcre2_match_data_free);
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, match.get(), nullptr) > 0;
  }

 private:
  pcre2_code* code_ = nullptr;
};

// glibc has this locale built in; its simple case mappings are Unicode's.
locale_t UnicodeLocale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

char32_t UpperOf(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z' ? c - 32 : c;
  return UnicodeLocale() == nullptr ? c : towupper_l(static_cast<wint_t>(c), UnicodeLocale());
}

char32_t LowerOf(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 32 : c;
  return UnicodeLocale() == nullptr ? c : towlower_l(static_cast<wint_t>(c), UnicodeLocale());
}

void AppendUpper(std::string& out, char32_t c) {
  if (c == 0xDF) {  // the sharp s is the one common letter whose capital is two letters
    out += "SS";
  } else {
    AppendCodePoint(out, UpperOf(c));
  }
}

bool IsCased(char32_t c) { return IsLower(c) || IsUpper(c); }

bool IsLineBreak(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

void AppendHex(std::string& out, char32_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out.push_back("0123456789abcdef"[value >> shift & 15]);
}

}  // namespace

bool IsValidUtf8(std::string_view text) {
  char32_t code_point = 0;
  size_t length = 0;
  for (size_t position = 0; position < text.size(); position += length) {
    if (!TryDecode(text, position, code_point, length)) return false;
  }
  return true;
}

char32_t DecodeCodePoint(std::string_view text, size_t& position) {
  char32_t code_point = 0;
  size_t length = 0;
  if (!TryDecode(text, position, code_point, length)) code_point = kReplacement;
  position += length;
  return code_point;
}

void AppendCodePoint(std::string& out, char32_t c) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | c >> 6));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | c >> 12));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | c >> 18));
    out.push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

size_t CountCodePoints(std::string_view text) {
  size_t count = 0;
  for (size_t position = 0; position < text.size(); ++count) DecodeCodePoint(text, position);
  return count;
}

std::u32string ToCodePoints(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) out.push_back(DecodeCodePoint(text, position));
  return out;
}

std::string FromCodePoints(std::u32string_view code_points) {
  std::string out;
  out.reserve(code_points.size());
  for (const char32_t c : code_points) AppendCodePoint(out, c);
  return out;
}

bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsPrintable(char32_t c) {
  if (c < 0x80) return c >= 0x20 && c < 0x7F;
  static const CharacterClass unprintable("[\\p{C}\\p{Z}]");
  return !unprintable.Contains(c);
}

bool IsAlpha(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  static const CharacterClass letters("\\p{L}");
  return letters.Contains(c);
}

bool IsDecimal(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  static const CharacterClass decimals("\\p{Nd}");
  return decimals.Contains(c);
}

bool IsDigit(char32_t c) {
  // Superscripts, subscripts and circled digits are digits without being decimals.
  static const CharacterClass others(
      "[\\x{B2}\\x{B3}\\x{B9}\\x{2070}\\x{2074}-\\x{2079}\\x{2080}-\\x{2089}"
      "\\x{2460}-\\x{2468}\\x{2474}-\\x{247C}\\x{2488}-\\x{2490}\\x{24EA}"
      "\\x{24F5}-\\x{24FD}\\x{24FF}\\x{2776}-\\x{277E}\\x{2780}-\\x{2788}"
      "\\x{278A}-\\x{2792}]");
  return IsDecimal(c) || (c >= 0x80 && others.Contains(c));
}

bool IsNumeric(char32_t c) {
  if (c < 0x80) return IsDecimal(c);
  static const CharacterClass numbers("\\p{N}");
  return numbers.Contains(c);
}

bool IsLower(char32_t c) {
  if (c < 0x80) return c >= 'a' && c <= 'z';
  static const CharacterClass lower("[\\p{Ll}\\x{AA}\\x{BA}]");
  return lower.Contains(c);
}

bool IsUpper(char32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z';
  static const CharacterClass upper("\\p{Lu}");
  return upper.Contains(c);
}

namespace {

template <typename Drop>
std::string_view StripIf(std::string_view text, bool left, bool right, Drop drop) {
  size_t begin = 0;
  while (left && begin < text.size()) {
    size_t next = begin;
    if (!drop(DecodeCodePoint(text, next))) break;
    begin = next;
  }
  size_t end = text.size();
  while (right && end > begin) {
    size_t start = end - 1;
    while (start > begin && end - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    size_t next = start;
    const char32_t c = DecodeCodePoint(text, next);
    if (next != end || !drop(c)) break;
    end = start;
  }
  return text.substr(begin, end - begin);
}

}  // namespace

std::string_view Strip(std::string_view text, bool left, bool right) { return StripIf(text, left, right, IsSpace); }

std::string_view StripAny(std::string_view text, std::string_view characters, bool left, bool right) {
  std::u32string set = ToCodePoints(characters);
  std::sort(set.begin(), set.end());
  return StripIf(text, left, right, [&](char32_t c) { return std::binary_search(set.begin(), set.end(), c); });
}

size_t FindText(std::string_view text, std::string_view wanted, size_t from) {
  if (from > text.size()) return text.npos;
  const void* found = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  return found == nullptr ? text.npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::string ToUpper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) AppendUpper(out, DecodeCodePoint(text, position));
  return out;
}

std::string ToLower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_letter = false;
  for (size_t position = 0; position < text.size();) {
    char32_t c = DecodeCodePoint(text, position);
    if (c == 0x3A3) {  // a capital sigma that ends a word has a form of its own
      size_t peek = position;
      const bool before_letter = position < text.size() && IsCased(DecodeCodePoint(text, peek));
      AppendCodePoint(out, after_letter && !before_letter ? 0x3C2 : 0x3C3);
    } else {
      AppendCodePoint(out, LowerOf(c));
    }
    after_letter = IsAlpha(c);
  }
  return out;
}

std::string ToTitle(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t position = 0; position < text.size();) {
    const char32_t c = DecodeCodePoint(text, position);
    if (in_word) {
      AppendCodePoint(out, LowerOf(c));
    } else if (c == 0xDF) {
      out += "Ss";
    } else {
      AppendCodePoint(out, UpperOf(c));
    }
    in_word = IsCased(c);
  }
  return out;
}

std::string ToCapitalized(std::string_view text) {
  if (text.empty()) return "";
  size_t position = 0;
  const char32_t first = DecodeCodePoint(text, position);
  std::string out;
  if (first == 0xDF) {
    out = "Ss";
  } else {
    AppendCodePoint(out, UpperOf(first));
  }
  return out + ToLower(text.substr(position));
}

std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t end = position;
    const char32_t c = DecodeCodePoint(text, position);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && position < text.size() && text[position] == '\n') ++position;
    lines.push_back(text.substr(start, (keep_ends ? position : end) - start));
    start = position;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string QuoteText(std::string_view text) {
  const bool use_double = text.find('\'') != text.npos && text.find('"') == text.npos;
  const char quote = use_double ? '"' : '\'';
  std::string out(1, quote);
  for (size_t position = 0; position < text.size();) {
    const char32_t c = DecodeCodePoint(text, position);
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out.push_back('\\');
      AppendCodePoint(out, c);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    } else if (IsPrintable(c)) {
      AppendCodePoint(out, c);
    } else {
      out += c < 0x100 ? "\\x" : c < 0x10000 ? "\\u" : "\\U";
      AppendHex(out, c, c < 0x100 ? 2 : c < 0x10000 ? 4 : 8);
    }
  }
  out.push_back(quote);
  return out;
}

std::string FormatDouble(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[400];
  const double size = std::fabs(value);
  const bool plain = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), value, format);
  std::string out(buffer, end);
  if (plain && out.find('.') == out.npos) out += ".0";
  return out;
}

}  // namespace baton::jinja

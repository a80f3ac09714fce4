// Text as Python's `str` sees it: UTF-8 bytes addressed by code point, Unicode white space, case, and literals.
//
// Threading: free functions without state; any thread. Errors: none; malformed UTF-8 reads as U+FFFD.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace baton::jinja {

bool IsValidUtf8(std::string_view text);
// The code point at `position` (a byte offset below text.size()), which moves past it.
char32_t DecodeCodePoint(std::string_view text, size_t& position);
void AppendCodePoint(std::string& out, char32_t code_point);
size_t CountCodePoints(std::string_view text);
std::u32string ToCodePoints(std::string_view text);
std::string FromCodePoints(std::u32string_view code_points);

// str.isspace() of one character, and the other questions that Python asks about characters.
bool IsSpace(char32_t code_point);
bool IsPrintable(char32_t code_point);
bool IsAlpha(char32_t code_point);
bool IsNumeric(char32_t code_point);
bool IsDecimal(char32_t code_point);
bool IsDigit(char32_t code_point);
bool IsLower(char32_t code_point);
bool IsUpper(char32_t code_point);

// Without white space at the asked ends.
std::string_view Strip(std::string_view text, bool left = true, bool right = true);
// Without any of the characters of `characters` at the asked ends.
std::string_view StripAny(std::string_view text, std::string_view characters, bool left = true, bool right = true);

// text.find(wanted, from), in linear time.
size_t FindText(std::string_view text, std::string_view wanted, size_t from = 0);

std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
std::string ToTitle(std::string_view text);        // str.title()
std::string ToCapitalized(std::string_view text);  // str.capitalize()

// str.splitlines().
std::vector<std::string_view> SplitLines(std::string_view text, bool keep_ends);

// repr() of a string and of a float.
std::string QuoteText(std::string_view text);
std::string FormatDouble(double value);

}  // namespace baton::jinja

#include "text/unicode.h"

#include <vector>

#include "text/unicode_tables.h"

namespace baton {
namespace {

// What may follow a lead byte: how many bytes in all, and the range of the second one (Unicode 14.0, table 3-7).
struct Lead {
  int bytes;
  uint8_t second_min, second_max;
};

Lead LeadOf(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte < 0xF0) return {3, uint8_t(byte == 0xE0 ? 0xA0 : 0x80), uint8_t(byte == 0xED ? 0x9F : 0xBF)};
  if (byte < 0xF5) return {4, uint8_t(byte == 0xF0 ? 0x90 : 0x80), uint8_t(byte == 0xF4 ? 0x8F : 0xBF)};
  return {0, 0, 0};
}

std::vector<uint8_t> BuildProperties() {
  std::vector<uint8_t> table(kCodePoints);
  for (const PropertyRange& range : kPropertyRanges) {
    for (char32_t code = range.first; code <= range.last; ++code) table[code] = range.bits;
  }
  for (const CombiningRange& range : kCombiningRanges) {
    for (char32_t code = range.first; code <= range.last; ++code) table[code] |= kMayChange;
  }
  for (const Decomposition& entry : kDecompositions) table[entry.composes ? entry.second : entry.code] |= kMayChange;
  for (char32_t jamo = 0x1161; jamo <= 0x11C2; ++jamo) table[jamo] |= kMayChange;  // vowels and finals compose
  return table;
}

}  // namespace

CodePoint DecodeUtf8(std::string_view text) {
  const auto byte_at = [&](int i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte_at(0);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = LeadOf(first);
  if (lead.bytes == 0) return {kReplacementCharacter, 1, false, false};
  char32_t value = first & (0x7F >> lead.bytes);
  for (int i = 1; i < lead.bytes; ++i) {
    if (static_cast<size_t>(i) == text.size()) return {kReplacementCharacter, i, false, true};
    const uint8_t byte = byte_at(i);
    const bool fits = i == 1 ? byte >= lead.second_min && byte <= lead.second_max : (byte & 0xC0) == 0x80;
    if (!fits) return {kReplacementCharacter, i, false, false};
    value = value << 6 | (byte & 0x3F);
  }
  return {value, lead.bytes, true, false};
}

void AppendUtf8(char32_t code, std::string& out) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | code >> 6));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | code >> 12));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | code >> 18));
    out.push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const CodePoint code = DecodeUtf8(text);
    if (!code.valid) return false;
    text.remove_prefix(code.bytes);
  }
  return true;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const CodePoint code = DecodeUtf8(text);
    if (code.valid) {
      out.append(text.substr(0, code.bytes));
    } else {
      AppendUtf8(kReplacementCharacter, out);
    }
    text.remove_prefix(code.bytes);
  }
  return out;
}

const uint8_t* CodePointProperties() {
  static const std::vector<uint8_t> table = BuildProperties();
  return table.data();
}

}  // namespace baton

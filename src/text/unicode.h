// UTF-8 and the properties of code points that tokenizers look at (Unicode 14.0, as PCRE2 10.42 has it).
//
// Threading: any thread; the table is built on first use. Errors: none; invalid UTF-8 is described, never trusted.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace baton {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

struct CodePoint {
  char32_t value;  // U+FFFD when not valid
  int bytes;       // 1 to 4; of an invalid sequence its maximal subpart (Unicode 3.9, as Python and the web replace it)
  bool valid;
  bool truncated;  // not valid, but more bytes might have made it so
};

// The code point at the front of `text`, which must not be empty.
CodePoint DecodeUtf8(std::string_view text);
void AppendUtf8(char32_t code, std::string& out);
bool IsValidUtf8(std::string_view text);
// Each maximal invalid subpart becomes U+FFFD: what bytes.decode("utf-8", errors="replace") gives in Python.
std::string ReplaceInvalidUtf8(std::string_view text);

// Bits of CodePointProperties().
inline constexpr uint8_t kLetter = 1;      // category L
inline constexpr uint8_t kNumber = 2;      // category N
inline constexpr uint8_t kWhiteSpace = 4;  // White_Space (not U+180E)
inline constexpr uint8_t kWord = 8;        // UTS 18 \w: Alphabetic, M, Nd, Pc, Join_Control
inline constexpr uint8_t kMayChange = 16;  // may change under NFC, alone or after what stands before it
inline constexpr char32_t kCodePoints = 0x110000;

// [kCodePoints] of the bits above. Fetch it once, outside of loops.
const uint8_t* CodePointProperties();

}  // namespace baton

#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace baton {
namespace {

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
}

constexpr int kStandIns = 0x100 + 68;  // code points below this are or may be stand-ins

struct Alphabet {
  std::array<char32_t, 256> of_byte{};
  std::array<int16_t, kStandIns> byte_of{};  // -1: not in the alphabet
};

constexpr Alphabet BuildAlphabet() {
  Alphabet alphabet;
  alphabet.byte_of.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    alphabet.of_byte[byte] = StandsForItself(byte) ? byte : next++;
    alphabet.byte_of[alphabet.of_byte[byte]] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = BuildAlphabet();

}  // namespace

std::optional<std::string> BytesOfAlphabet(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const CodePoint code = DecodeUtf8(text);
    if (!code.valid || code.value >= kStandIns || kAlphabet.byte_of[code.value] < 0) return std::nullopt;
    out.push_back(static_cast<char>(kAlphabet.byte_of[code.value]));
    text.remove_prefix(code.bytes);
  }
  return out;
}

std::string AlphabetOfBytes(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) AppendUtf8(kAlphabet.of_byte[static_cast<uint8_t>(byte)], out);
  return out;
}

}  // namespace baton

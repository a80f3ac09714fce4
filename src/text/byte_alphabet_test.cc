#include "text/byte_alphabet.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(ByteAlphabetTest, IsGpt2s) {
  EXPECT_EQ(BytesOfAlphabet("Ġthe"), " the");
  EXPECT_EQ(BytesOfAlphabet("ĊĉÃ©"), "\n\té");
  EXPECT_EQ(AlphabetOfBytes("\xAD"), "\u0143");  // the soft hyphen is the last to get a stand-in
}

TEST(ByteAlphabetTest, EveryByteRoundTrips) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    EXPECT_EQ(BytesOfAlphabet(AlphabetOfBytes(bytes)), bytes);
  }
}

TEST(ByteAlphabetTest, SaysWhatIsOutside) {
  for (const char* text : {" ", "\u0144", "中", "\xFF", "a b"}) EXPECT_EQ(BytesOfAlphabet(text), std::nullopt) << text;
}

}  // namespace
}  // namespace baton

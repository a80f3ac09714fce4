#include "text/nfc.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(NfcTest, ComposesAndOrders) {
  EXPECT_EQ(NormalizeNfc("e\u0301"), "\u00e9");
  EXPECT_EQ(NormalizeNfc("o\u0302\u0323"), "\u1ed9");         // the mark below is first, then both compose
  EXPECT_EQ(NormalizeNfc("q\u0307\u0323"), "q\u0323\u0307");  // nothing composes, but the order is canonical
  EXPECT_EQ(NormalizeNfc("\u212b"), "\u00c5");                // a singleton
  EXPECT_EQ(NormalizeNfc("\u0958"), "\u0915\u093c");          // excluded from composition
  EXPECT_EQ(NormalizeNfc("\u1112\u1161\u11ab"), "\ud55c");    // Hangul
  EXPECT_EQ(NormalizeNfc("\ud558\u11ab"), "\ud55c");
  EXPECT_EQ(NormalizeNfc("\u1100\u11a8"), "\u1100\u11a8");               // no vowel between
  EXPECT_EQ(NormalizeNfc("a\u05b7\u0301\u0301"), "\u00e1\u05b7\u0301");  // equal classes block
}

TEST(NfcTest, LeavesNormalizedTextAlone) {
  for (const std::string text : {"", "plain", "é ộ 한 中文 👍"}) {
    EXPECT_TRUE(IsQuicklyNfc(text));
    EXPECT_EQ(NormalizeNfc(text), text);
  }
}

TEST(NfcTest, LongRunsOfMarksStayInOrder) {
  std::string marks = "x", expected = "x";
  for (int i = 0; i < 20000; ++i) marks += i % 2 ? "\u0316" : "\u0301";
  for (int i = 0; i < 10000; ++i) expected += "\u0316";
  for (int i = 0; i < 10000; ++i) expected += "\u0301";
  EXPECT_EQ(NormalizeNfc(marks), expected);
}

}  // namespace
}  // namespace baton

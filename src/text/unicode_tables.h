// The generated tables behind unicode.cc and nfc.cc.
#pragma once

#include <cstdint>

namespace baton {

struct PropertyRange {
  char32_t first, last;
  uint8_t bits;
};
struct CombiningRange {
  char32_t first, last;
  uint8_t combining_class;  // not 0
};
struct Decomposition {
  char32_t code, first, second;  // second 0: a singleton
  bool composes;                 // (first, second) composes to code again
};

#include "text/unicode_tables.inc"

}  // namespace baton

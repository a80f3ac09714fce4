// A tensor that is not stored: each element is an entry of a table, chosen by random bits that are a function of the
// tensor's key and the element's index alone. So a host and a device make the same bytes, in any order, of any part.
//
// Threading: values; pure functions. Ownership: the table is the maker's. Errors: none.
#pragma once

#include <cstdint>
#include <span>

#include "core/random.h"

namespace baton {

struct TensorRecipe {
  uint64_t key = 0;                // of the tensor
  const uint8_t* table = nullptr;  // [2^bits()] elements as stored
  int32_t element_bytes = 1;       // 1, 2 or 4

  constexpr int32_t bits() const { return element_bytes == 1 ? 8 : 16; }  // random bits that one element takes
  constexpr int32_t per_word() const { return 64 / bits(); }
  constexpr int64_t table_bytes() const { return (int64_t{1} << bits()) * element_bytes; }
};

// The random bits of the elements [place × per_word, (place + 1) × per_word), lowest first.
constexpr uint64_t RecipeWord(uint64_t key, uint64_t place) {
  return MixBits(key ^ MixBits(place + 0x9e3779b97f4a7c15ull));
}

// Bytes [begin, begin + out.size()) of the tensor; whole elements.
void MakeElements(const TensorRecipe& recipe, int64_t begin, std::span<uint8_t> out);

}  // namespace baton

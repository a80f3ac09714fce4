#include "core/tensor_recipe.h"

#include <algorithm>
#include <cstring>

namespace baton {
namespace {

template <int kBytes>
void Make(const TensorRecipe& recipe, int64_t begin, int64_t end, uint8_t* out) {
  constexpr int kBits = kBytes == 1 ? 8 : 16;
  constexpr int kPerWord = 64 / kBits;
  constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;
  for (int64_t i = begin; i < end;) {
    uint64_t word = RecipeWord(recipe.key, static_cast<uint64_t>(i / kPerWord)) >> (i % kPerWord * kBits);
    for (const int64_t stop = std::min(end, (i / kPerWord + 1) * kPerWord); i < stop; ++i, word >>= kBits) {
      std::memcpy(out + (i - begin) * kBytes, recipe.table + (word & kMask) * kBytes, kBytes);
    }
  }
}

}  // namespace

void MakeElements(const TensorRecipe& recipe, int64_t begin, std::span<uint8_t> out) {
  const int64_t first = begin / recipe.element_bytes;
  const int64_t end = first + static_cast<int64_t>(out.size()) / recipe.element_bytes;
  if (recipe.element_bytes == 1) return Make<1>(recipe, first, end, out.data());
  if (recipe.element_bytes == 2) return Make<2>(recipe, first, end, out.data());
  Make<4>(recipe, first, end, out.data());
}

}  // namespace baton

// Types of stored numbers, and views of tensors in mapped files.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/tensor_recipe.h"

namespace baton {

// Block-quantized types follow GGUF: kQ4_1 is 32 weights in 20 bytes, and so on.
enum class DType : uint8_t { kF32, kF16, kBF16, kF8E4M3, kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ4_K, kQ5_K, kQ6_K, kI8 };

struct DTypeTraits {
  std::string_view name;
  int32_t block_elements;  // elements that share one encoded block; 1 for plain types
  int32_t block_bytes;
};

constexpr DTypeTraits TraitsOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return {"F32", 1, 4};
    case DType::kF16:
      return {"F16", 1, 2};
    case DType::kBF16:
      return {"BF16", 1, 2};
    case DType::kF8E4M3:
      return {"F8_E4M3", 1, 1};
    case DType::kQ8_0:
      return {"Q8_0", 32, 34};
    case DType::kQ4_0:
      return {"Q4_0", 32, 18};
    case DType::kQ4_1:
      return {"Q4_1", 32, 20};
    case DType::kQ5_0:
      return {"Q5_0", 32, 22};
    case DType::kQ5_1:
      return {"Q5_1", 32, 24};
    case DType::kQ4_K:
      return {"Q4_K", 256, 144};
    case DType::kQ5_K:
      return {"Q5_K", 256, 176};
    case DType::kQ6_K:
      return {"Q6_K", 256, 210};
    case DType::kI8:  // of KV caches only, with a scale for each row (kv_layout.h)
      return {"I8", 1, 1};
  }
  return {"?", 1, 0};
}

// Bytes of `elements` consecutive elements, a multiple of the type's block.
constexpr int64_t DTypeRowBytes(DType dtype, int64_t elements) {
  return elements / TraitsOf(dtype).block_elements * TraitsOf(dtype).block_bytes;
}

// A tensor inside memory that somebody else owns (mostly a mapped file), or a way to make it. Row-major; shape
// outermost first.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;     // for a linear weight: [out, in]
  const uint8_t* data = nullptr;  // no alignment is promised; null where there is a recipe instead
  int64_t bytes = 0;
  const TensorRecipe* recipe = nullptr;  // dummy weights that a device makes for itself

  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t columns() const { return shape.empty() ? 0 : shape.back(); }
};

}  // namespace baton

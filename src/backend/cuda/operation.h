// One operation of a step, as the backend was asked for it: what becomes kernels when its successor is known.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cuda/weights.h"

namespace baton::cuda {

struct Operation {
  enum class Type : uint8_t { kEmbed, kNorm, kLinear, kRotate, kAttention, kSwiGlu, kLogits };
  Type type;
  bool add_delta = false;
  Slot input = Slot::kResidual;
  Slot output = Slot::kResidual;
  int32_t layer = 0;
  const CudaLinear* linear = nullptr;
  const CudaVector* vector = nullptr;
  bool operator==(const Operation&) const = default;

  // Whether what it leaves behind (FP8 or BF16) depends on the layer that reads it.
  bool NeedsSuccessor() const { return type == Type::kNorm || type == Type::kAttention || type == Type::kSwiGlu; }
};

}  // namespace baton::cuda

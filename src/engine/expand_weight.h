// Weights of types that a backend does not compute with, as BF16: GGUF's blocks for the GPU, FP8 for the CPU. An FP8
// weight's scale goes into its elements, so that its activations stay unquantized there.
//
// Threading: uses threads of its own while it runs. Ownership: what is made belongs to the ExpandedWeight.
// Errors: InvalidArgument for a scale whose size does not fit.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "core/tensor.h"
#include "model/model.h"

namespace baton {

struct ExpandedWeight {
  std::unique_ptr<uint16_t[]> elements;  // BF16, rounded to nearest
  LinearSource source;                   // with a view of them, and the bias of the original
};

// Whether a backend that computes with `types` needs this weight expanded; dummy weights without memory never do.
bool NeedsExpansion(const TensorView& weight, std::span<const DType> types);
absl::StatusOr<ExpandedWeight> ExpandToBf16(const LinearSource& source);

// Bytes of all tensors of a model once expanded for `types`.
int64_t ExpandedBytes(const Model& model, std::span<const DType> types);

}  // namespace baton

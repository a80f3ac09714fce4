// The plain meaning of every stored type: what fast kernels are tested against.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace baton {

// `elements` consecutive elements, a multiple of the type's block, as float. FP8 without its scale: that is a tensor of
// its own. `data` needs no alignment. Block types as ggml defines them (ggml-common.h, ggml-quants.c).
void Dequantize(DType dtype, const uint8_t* data, int64_t elements, float* out);

}  // namespace baton

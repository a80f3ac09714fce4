// 32 consecutive weights of any block-quantized GGUF type, taken apart into integers (ggml-common.h has the types).
//
// Threading: pure.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace baton::cpu {

// Q8_0: scale × (int8) q. Others: scale × q + minimum, where Q4_0, Q5_0 and Q6_K leave the minimum to the type. Of K
// types, scale and minimum belong to 256 weights, and are to be multiplied by the part's numbers.
struct QuantBlock {
  uint8_t q[32];
  uint16_t scale = 0;          // F16 bits
  uint16_t minimum = 0;        // F16 bits
  uint8_t part_scale[2] = {};  // Q6_K: two, as int8, one for each 16 weights
  uint8_t part_minimum = 0;
};

// Weights [32 × block, 32 × block + 32) of the encoded row.
QuantBlock DecodeQuantBlock(DType dtype, const uint8_t* row, int64_t block);

}  // namespace baton::cpu

// The activations of a step: one buffer for each slot, and FP8 (or BF16) copies with token scales of what linear layers
// read.
//
// Threading: none. Ownership: holds its memory. Errors: ResourceExhausted.
#pragma once

#include "backend/backend.h"
#include "backend/cuda/kernels.h"
#include "device/cuda_device.h"

namespace baton::cuda {

struct Activations {
  __nv_bfloat16* residual = nullptr;   // [tokens][hidden]
  __nv_bfloat16* qkv = nullptr;        // [tokens][(heads + 2 kv_heads) × head_dim] sums; Q in place as FP16 after RoPE
  __nv_bfloat16* attention = nullptr;  // [tokens][heads × head_dim]
  __nv_bfloat16* delta = nullptr;      // [tokens][hidden] sums
  __nv_bfloat16* gate_up = nullptr;    // [tokens][2 × intermediate] sums
  float* logits = nullptr;             // [logit_rows][vocabulary]
  int32_t logit_rows = 0;

  // Inputs of linear layers: E4M3 with a scale a token, or BF16, in the same memory.
  struct Input {
    uint8_t* data = nullptr;
    float* scale = nullptr;  // [tokens]
    // For a layer that reads FP8, with its static scale if it has one, or BF16.
    RowOutput Output(bool fp8, float static_scale = 0) const {
      return fp8 ? RowOutput{data, scale, nullptr, static_scale}
                 : RowOutput{nullptr, nullptr, reinterpret_cast<__nv_bfloat16*>(data)};
    }
  };
  Input normed, attended, activated, head_input;

  // `bf16_layers`: some layer's weights are BF16, so that its input needs two bytes an element.
  static absl::StatusOr<Activations> Create(const ModelShape& shape, const StepLimits& limits, bool bf16_layers);

 private:
  CudaMemory memory_;
};

}  // namespace baton::cuda

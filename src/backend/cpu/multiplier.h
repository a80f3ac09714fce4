// out[token] = weight × x[token] + bias, over all threads: quantizes the input as the weight's type needs it, then
// hands out panels.
//
// Threading: as ThreadPool. Ownership: keeps buffers for the largest product so far.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cpu/kernels.h"
#include "backend/cpu/packed_weight.h"
#include "backend/cpu/thread_pool.h"

namespace baton::cpu {

class Multiplier {
 public:
  Multiplier(const Kernels& kernels, ThreadPool& pool);

  // x: [tokens][weight.columns()] with stride x_stride; out: [tokens][weight.rows()] with stride out_stride (floats).
  void Multiply(const PackedWeight& weight, const float* x, int64_t x_stride, int64_t tokens, float* out,
                int64_t out_stride);

 private:
  struct Product {
    const PackedWeight* weight;
    const float* x;
    int64_t x_stride;
    int64_t tokens;
    float* out;
    int64_t out_stride;
  };
  void QuantizeInput(const Product& product, InputKind kind);
  void MultiplyPanel(const Product& product, int64_t panel, int64_t first_column, int thread);

  const Kernels& kernels_;
  ThreadPool& pool_;
  std::vector<uint8_t> tiles_[kNumInputKinds];  // by InputKind; kFloat has none
  std::vector<Outlier> outliers_[kNumInputKinds];
  struct alignas(64) Scratch {
    uint8_t bytes[kMultiplyScratch];
    float panel[kColumnGroup * kPanelRows];  // a panel's outputs when they cannot be written in place
  };
  std::vector<Scratch> scratch_;  // [threads]
};

}  // namespace baton::cpu

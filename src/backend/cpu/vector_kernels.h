// What the *_avx2.cc, *_avx512.cc and *_avx512bf16.cc files define, for kernels.cc to collect. Nothing here needs the
// instructions: this header may be included everywhere.
#pragma once

#include "backend/cpu/kernels.h"

namespace baton::cpu {

// ---- AVX2, FMA and F16C ----

inline constexpr int kAvx2NibbleTile = 4;  // columns × 16 rows of sums fill the registers

void QuantizeTileAvx2(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile,
                      Outlier* outliers);
void NormAvx2(const NormArgs& args);
void RotateAvx2(float* x, int heads, int head_dim, const float* cosines, const float* sines, bool interleaved);
void StoreHalfAvx2(const float* x, int64_t count, uint16_t* out);
void SwiGluAvx2(const float* gate, const float* up, int64_t count, float* out);
void StoreInt8Avx2(const float* x, int64_t count, uint8_t* out);
void StoreInt8KeyAvx2(const float* x, int64_t count, uint8_t* out);
void AttentionAvx2(const AttentionArgs& args);
void MergeSectionsAvx2(float* partials, int sections, int heads, int dim, float* out);
void MultiplyF32Avx2(const MultiplyArgs& args);
void MultiplyF16Avx2(const MultiplyArgs& args);
void MultiplyBf16Avx2(const MultiplyArgs& args);
void MultiplyQ8Avx2(const MultiplyArgs& args);
void MultiplyQ4Avx2(const MultiplyArgs& args);
void MultiplyQ4MinAvx2(const MultiplyArgs& args);
void MultiplyQ4KAvx2(const MultiplyArgs& args);
void MultiplyQ5Avx2(const MultiplyArgs& args);
void MultiplyQ5MinAvx2(const MultiplyArgs& args);
void MultiplyQ5KAvx2(const MultiplyArgs& args);
void MultiplyQ6KAvx2(const MultiplyArgs& args);

// ---- AVX-512 F, BW, DQ, VL and VNNI ----

inline constexpr int kAvx512Tile = 8;  // columns × 16 rows: sums of floats and of integers in 16 of 32 registers

void AttentionAvx512(const AttentionArgs& args);
void MultiplyF32Avx512(const MultiplyArgs& args);
void MultiplyF16Avx512(const MultiplyArgs& args);
void MultiplyBf16Avx512(const MultiplyArgs& args);
void MultiplyBf16Avx512Bf16(const MultiplyArgs& args);
void MultiplyQ8Avx512(const MultiplyArgs& args);
void MultiplyQ4Avx512(const MultiplyArgs& args);
void MultiplyQ4MinAvx512(const MultiplyArgs& args);
void MultiplyQ4KAvx512(const MultiplyArgs& args);
void MultiplyQ5Avx512(const MultiplyArgs& args);
void MultiplyQ5MinAvx512(const MultiplyArgs& args);
void MultiplyQ5KAvx512(const MultiplyArgs& args);
void MultiplyQ6KAvx512(const MultiplyArgs& args);

}  // namespace baton::cpu

// Shared by the *_avx512.cc and *_avx512bf16.cc files only; internal linkage, as in avx2.h.
//
// Integer sums are exact and float sums have AVX2's order, so products give AVX2's bits; only BF16 weights on machines
// with AVX512_BF16 differ, whose input is rounded to BF16 (multiply_bf16_avx512bf16.cc).
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "backend/cpu/vector_kernels.h"

#define BATON_INLINE static inline __attribute__((always_inline))

namespace baton::cpu {

namespace avx512 {

BATON_INLINE __m512 LoadHalves(const void* data) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(data)));
}
BATON_INLINE __m512i Broadcast4(const void* data) {
  int32_t word;
  std::memcpy(&word, data, 4);
  return _mm512_set1_epi32(word);
}

}  // namespace avx512

}  // namespace baton::cpu

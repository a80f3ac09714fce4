// Shared by the *_avx2.cc files only. Everything here has internal linkage: an inline function with a vector
// instruction in it must never be what the linker picks for a machine without AVX2.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "backend/cpu/vector_kernels.h"

#define BATON_INLINE static inline __attribute__((always_inline))
// Keeps a vector in its register: compilers reorder integer sums and then spill.
#define BATON_PIN(x) asm volatile("" : "+x"(x))

namespace baton::cpu {

namespace avx2 {

BATON_INLINE __m256 LoadHalves(const void* data) {
  return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(data)));
}

// The one order in which eight lanes are added.
BATON_INLINE float SumLanes(__m256 x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
BATON_INLINE float MaxLane(__m256 x) {
  __m128 max = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  max = _mm_max_ps(max, _mm_movehl_ps(max, max));
  return _mm_cvtss_f32(_mm_max_ss(max, _mm_movehdup_ps(max)));
}

// e^x to about 1e-7, by 2^n × polynomial (Cephes); exactly 0 below -87; NaN stays NaN.
BATON_INLINE __m256 Exp(__m256 x) {
  const __m256 zero_below = _mm256_cmp_ps(x, _mm256_set1_ps(-87.0f), _CMP_NLT_UQ);
  // The constant first: min and max return their second operand when one is NaN.
  x = _mm256_min_ps(_mm256_set1_ps(88.0f), _mm256_max_ps(_mm256_set1_ps(-88.0f), x));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r), _mm256_set1_ps(1.0f));
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(exponent)), zero_below);
}

}  // namespace avx2

}  // namespace baton::cpu

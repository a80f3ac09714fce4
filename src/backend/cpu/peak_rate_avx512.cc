#include "backend/cpu/avx512.h"
#include "backend/cpu/peak_rate.h"

namespace baton::cpu {
namespace {

constexpr int kSums = 12;  // independent, so that none waits for its own latency
constexpr int kLoops = 4000;

// An empty asm makes the operand look changed, so that no product is taken out of the loop.
int64_t RunInt8() {
  __m512i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_epi32(i);
  __m512i weights = _mm512_set1_epi8(7);
  const __m512i activations = _mm512_set1_epi8(-3);
  for (int loop = 0; loop < kLoops; ++loop) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      asm volatile("" : "+v"(weights));
      sums[i] = _mm512_dpbusd_epi32(sums[i], weights, activations);
    }
  }
  for (__m512i& sum : sums) asm volatile("" : : "v"(sum));
  return int64_t{2} * 64 * kSums * kLoops;
}

int64_t RunFloat() {
  __m512 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_ps(static_cast<float>(i));
  __m512 a = _mm512_set1_ps(0.5f);
  const __m512 b = _mm512_set1_ps(0.25f);
  for (int loop = 0; loop < kLoops; ++loop) {
    asm volatile("" : "+v"(a));
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
  }
  for (__m512& sum : sums) asm volatile("" : : "v"(sum));
  return int64_t{2} * 16 * kSums * kLoops;
}

}  // namespace

PeakRate Int8RateAvx512() { return {RunInt8}; }
PeakRate FloatRateAvx512() { return {RunFloat}; }

}  // namespace baton::cpu

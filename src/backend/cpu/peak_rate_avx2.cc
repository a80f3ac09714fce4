#include "backend/cpu/avx2.h"
#include "backend/cpu/peak_rate.h"

namespace baton::cpu {
namespace {

constexpr int kSums = 12;  // independent, so that none waits for its own latency
constexpr int kLoops = 4000;

int64_t RunInt8() {
  volatile int sink;
  __m256i sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_set1_epi16(static_cast<int16_t>(i));
  __m256i weights = _mm256_set1_epi8(7);
  const __m256i activations = _mm256_set1_epi8(-3);
  for (int loop = 0; loop < kLoops; ++loop) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) {
      BATON_PIN(weights);  // the same product every time: it is not to be computed once
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(weights, activations));
    }
  }
  for (const __m256i& sum : sums) sink = _mm256_extract_epi32(sum, 0);
  (void)sink;
  return int64_t{2} * 32 * kSums * kLoops;
}

int64_t RunFloat() {
  volatile float sink;
  __m256 sums[kSums];
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_set1_ps(static_cast<float>(i));
  __m256 a = _mm256_set1_ps(0.5f);
  const __m256 b = _mm256_set1_ps(0.25f);
  for (int loop = 0; loop < kLoops; ++loop) {
    BATON_PIN(a);
#pragma GCC unroll 12
    for (int i = 0; i < kSums; ++i) sums[i] = _mm256_fmadd_ps(a, b, sums[i]);
  }
  for (const __m256& sum : sums) sink = _mm256_cvtss_f32(sum);
  (void)sink;
  return int64_t{2} * 8 * kSums * kLoops;
}

}  // namespace

PeakRate Int8RateAvx2() { return {RunInt8}; }
PeakRate FloatRateAvx2() { return {RunFloat}; }

}  // namespace baton::cpu

#include "backend/cpu/attention_many_avx2.h"

namespace baton::cpu {
namespace {

using avx2::AddLanes4;
using avx2::JoinHalves;

BATON_INLINE __m256 Scores8(const float* q, const float* k, int dim) {
  __m256 sum[8];
#pragma GCC unroll 8
  for (int t = 0; t < 8; ++t) sum[t] = _mm256_setzero_ps();
  for (int d = 0; d < dim; d += 8, k += 64) {
    const __m256 query = _mm256_load_ps(q + d);
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t) sum[t] = _mm256_fmadd_ps(query, _mm256_load_ps(k + t * 8), sum[t]);
  }
  return JoinHalves(AddLanes4(sum[0], sum[1], sum[2], sum[3]), AddLanes4(sum[4], sum[5], sum[6], sum[7]));
}

// values[d] = values[d] × correction + Σ weights[t] × v[t][d] for kVectors × 8 of the dimensions.
template <int kVectors>
BATON_INLINE void AddVectors(const float* weights, const float* v, int tokens, int dim, __m256 correction,
                             float* values) {
  __m256 sum[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) sum[i] = _mm256_mul_ps(_mm256_load_ps(values + i * 8), correction);
  for (int t = 0; t < tokens; ++t, v += dim) {
    const __m256 weight = _mm256_broadcast_ss(weights + t);
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) sum[i] = _mm256_fmadd_ps(weight, _mm256_load_ps(v + i * 8), sum[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) _mm256_store_ps(values + i * 8, sum[i]);
}

struct Ops {
  BATON_INLINE void Scores(const float* q, const float* k, int tokens, int dim, float* scores) {
    for (int t = 0; t < tokens; t += kGroup) _mm256_store_ps(scores + t, Scores8(q, k + t * dim, dim));
  }
  BATON_INLINE void AddValues(const float* weights, const float* v, int tokens, int dim, float correction,
                              float* values) {
    const __m256 factor = _mm256_set1_ps(correction);
    int d = 0;
    for (; d + 64 <= dim; d += 64) AddVectors<8>(weights, v + d, tokens, dim, factor, values + d);
    for (; d < dim; d += 8) AddVectors<1>(weights, v + d, tokens, dim, factor, values + d);
  }
};

}  // namespace

void AttendManyAvx2(const AttentionArgs& args, int begin, int end, const State& state) {
  AttendMany<Ops>(args, begin, end, state);
}

}  // namespace baton::cpu

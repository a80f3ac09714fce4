// The same sums as AVX2's, to the same bits: a register holds eight lanes of two tokens, or sixteen dimensions.
#include "backend/cpu/attention_many_avx2.h"

namespace baton::cpu {
namespace {

using avx2::AddLanes4;
using avx2::JoinHalves;

BATON_INLINE __m256 Low(__m512 x) { return _mm512_castps512_ps256(x); }
BATON_INLINE __m256 High(__m512 x) { return _mm512_extractf32x8_ps(x, 1); }

BATON_INLINE __m256 Scores8(const float* q, const float* k, int dim) {
  __m512 sum[4];  // of tokens 2i and 2i + 1
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sum[i] = _mm512_setzero_ps();
  for (int d = 0; d < dim; d += 8, k += 64) {
    const __m512 query = _mm512_broadcast_f32x8(_mm256_load_ps(q + d));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] = _mm512_fmadd_ps(query, _mm512_load_ps(k + i * 16), sum[i]);
  }
  return JoinHalves(AddLanes4(Low(sum[0]), High(sum[0]), Low(sum[1]), High(sum[1])),
                    AddLanes4(Low(sum[2]), High(sum[2]), Low(sum[3]), High(sum[3])));
}

// 64 of the dimensions.
BATON_INLINE void Add64(const float* weights, const float* v, int tokens, int dim, float correction, float* values) {
  __m512 sum[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) sum[i] = _mm512_mul_ps(_mm512_loadu_ps(values + i * 16), _mm512_set1_ps(correction));
  for (int t = 0; t < tokens; ++t, v += dim) {
    const __m512 weight = _mm512_set1_ps(weights[t]);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) sum[i] = _mm512_fmadd_ps(weight, _mm512_loadu_ps(v + i * 16), sum[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) _mm512_storeu_ps(values + i * 16, sum[i]);
}
BATON_INLINE void Add8(const float* weights, const float* v, int tokens, int dim, float correction, float* values) {
  __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(values), _mm256_set1_ps(correction));
  for (int t = 0; t < tokens; ++t, v += dim) {
    sum = _mm256_fmadd_ps(_mm256_set1_ps(weights[t]), _mm256_loadu_ps(v), sum);
  }
  _mm256_storeu_ps(values, sum);
}

struct Ops {
  BATON_INLINE void Scores(const float* q, const float* k, int tokens, int dim, float* scores) {
    for (int t = 0; t < tokens; t += kGroup) _mm256_store_ps(scores + t, Scores8(q, k + t * dim, dim));
  }
  BATON_INLINE void AddValues(const float* weights, const float* v, int tokens, int dim, float correction,
                              float* values) {
    int d = 0;
    for (; d + 64 <= dim; d += 64) Add64(weights, v + d, tokens, dim, correction, values + d);
    for (; d < dim; d += 8) Add8(weights, v + d, tokens, dim, correction, values + d);
  }
};

}  // namespace

void AttendManyAvx512(const AttentionArgs& args, int begin, int end, const State& state) {
  AttendMany<Ops>(args, begin, end, state);
}

}  // namespace baton::cpu

// Attention over the paged KV cache for AVX2: softmax over tiles of 32 tokens with a running maximum (online softmax,
// arXiv:1805.02867), the tile of K and V widened once for all queries and heads that read it.
//
// A query's tiles begin at position 0 and its sums take tokens in order, so the result does not depend on which
// queries share a call, on the block size, or on where a chunk began.
#include <cstring>

#include "backend/cpu/avx2.h"

namespace baton::cpu {
namespace {

using avx2::Exp;
using avx2::LoadHalves;
using avx2::MaxLane;
using avx2::SumLanes;

void LoadTile(const AttentionArgs& args, const uint8_t* plane, int first_token, int tokens, float* out) {
  const int dim = args.head_dim;
  const int64_t row_bytes = int64_t{dim} * (args.f16 ? 2 : 4);
  int block = first_token / args.block_size;
  int offset = first_token % args.block_size;
  const uint8_t* row = plane + args.block_table[block] * args.block_bytes + offset * row_bytes;
  for (int t = 0; t < tokens; ++t, out += dim, row += row_bytes) {
    if (offset++ == args.block_size) {
      row = plane + args.block_table[++block] * args.block_bytes;
      offset = 1;
    }
    if (args.f16) {
      for (int d = 0; d < dim; d += 8) _mm256_store_ps(out + d, LoadHalves(row + d * 2));
    } else {
      std::memcpy(out, row, row_bytes);
    }
  }
}

// Adds neighbours: [a0+a1, a2+a3, b0+b1, b2+b3 | the same of the upper halves].
BATON_INLINE __m256 AddNeighbours(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}

// q · k of 8 tokens.
BATON_INLINE __m256 Scores8(const float* q, const float* k, int dim) {
  __m256 sum[8];
#pragma GCC unroll 8
  for (int t = 0; t < 8; ++t) sum[t] = _mm256_setzero_ps();
  for (int d = 0; d < dim; d += 8) {
    const __m256 query = _mm256_load_ps(q + d);
#pragma GCC unroll 8
    for (int t = 0; t < 8; ++t) sum[t] = _mm256_fmadd_ps(query, _mm256_load_ps(k + t * dim + d), sum[t]);
  }
  const __m256 low = AddNeighbours(AddNeighbours(sum[0], sum[1]), AddNeighbours(sum[2], sum[3]));
  const __m256 high = AddNeighbours(AddNeighbours(sum[4], sum[5]), AddNeighbours(sum[6], sum[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

// values[d] = values[d] × correction + Σ weights[t] × v[t][d] for kVectors × 8 of the dimensions.
template <int kVectors>
BATON_INLINE void AddValues(const float* weights, const float* v, int tokens, int dim, __m256 correction,
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

// The running softmax of one query head takes in the first `tokens` tokens of a tile.
void AddTile(const float* q, const float* k, const float* v, int tokens, int dim, float* maximum, float* sum,
             float* values) {
  alignas(32) float weights[kAttentionTile];
  const __m256 none = _mm256_set1_ps(-__builtin_inff());
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 score[4] = {none, none, none, none};
  __m256 largest = none;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const int left = tokens - i * 8;
    if (left <= 0) continue;
    score[i] = Scores8(q, k + i * 8 * dim, dim);
    if (left < 8) {
      const __m256i beyond = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(left - 1));
      score[i] = _mm256_blendv_ps(score[i], none, _mm256_castsi256_ps(beyond));
    }
    largest = _mm256_max_ps(largest, score[i]);
  }
  const float tile_maximum = MaxLane(largest);
  const float new_maximum = *maximum > tile_maximum ? *maximum : tile_maximum;
  const __m256 shift = _mm256_set1_ps(new_maximum);
  const __m256 correction = Exp(_mm256_sub_ps(_mm256_set1_ps(*maximum), shift));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    score[i] = Exp(_mm256_sub_ps(score[i], shift));
    _mm256_store_ps(weights + i * 8, score[i]);
  }
  const float added = SumLanes(_mm256_add_ps(_mm256_add_ps(score[0], score[1]), _mm256_add_ps(score[2], score[3])));
  *maximum = new_maximum;
  *sum = __builtin_fmaf(*sum, _mm256_cvtss_f32(correction), added);
  int d = 0;
  for (; d + 64 <= dim; d += 64) AddValues<8>(weights, v + d, tokens, dim, correction, values + d);
  for (; d < dim; d += 8) AddValues<1>(weights, v + d, tokens, dim, correction, values + d);
}

}  // namespace

void AttentionAvx2(const AttentionArgs& args) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  float* k = args.scratch;
  float* v = k + kAttentionTile * dim;
  float* q = v + kAttentionTile * dim;
  float* values = q + rows * dim;
  float* maxima = values + rows * dim;
  float* sums = maxima + rows;
  const __m256 scale = _mm256_set1_ps(args.scale);
  for (int row = 0; row < rows; ++row) {
    const float* source = args.q + row / args.heads * args.q_stride + row % args.heads * dim;
    for (int d = 0; d < dim; d += 8) {
      _mm256_store_ps(q + row * dim + d, _mm256_mul_ps(_mm256_loadu_ps(source + d), scale));
      _mm256_store_ps(values + row * dim + d, _mm256_setzero_ps());
    }
    maxima[row] = -__builtin_inff();
    sums[row] = 0;
  }
  const int end = args.first_position + args.queries;  // tokens that the last query sees
  for (int first = 0; first < end; first += kAttentionTile) {
    const int loaded = end - first < kAttentionTile ? end - first : kAttentionTile;
    LoadTile(args, args.k, first, loaded, k);
    LoadTile(args, args.v, first, loaded, v);
    for (int row = 0; row < rows; ++row) {
      const int seen = args.first_position + row / args.heads + 1 - first;
      const int tokens = seen < loaded ? seen : loaded;
      if (tokens <= 0) continue;
      AddTile(q + row * dim, k, v, tokens, dim, maxima + row, sums + row, values + row * dim);
    }
  }
  for (int row = 0; row < rows; ++row) {
    float* out = args.out + row / args.heads * args.out_stride + row % args.heads * dim;
    const __m256 inverse = _mm256_set1_ps(1.0f / sums[row]);
    for (int d = 0; d < dim; d += 8) {
      _mm256_storeu_ps(out + d, _mm256_mul_ps(_mm256_load_ps(values + row * dim + d), inverse));
    }
  }
}

}  // namespace baton::cpu

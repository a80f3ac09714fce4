// Attention over the paged KV cache for AVX2: softmax over tiles of 32 tokens with a running maximum (online softmax,
// arXiv:1805.02867).
//
// A query's tiles begin at position 0. A score adds 8 lanes over the head's dimensions in order, then the lanes in one
// tree; values add tokens in order. So the result does not depend on which queries share a call, on the block size, or
// on where a chunk began. Two variants with the same bits: many queries read a tile of K and V that was widened to
// floats once; a single query (decode) reads K and V as they lie, for up to three heads at a time, and prefetches.
#include "backend/cpu/avx2.h"

namespace baton::cpu {
namespace {

using avx2::Exp;
using avx2::LoadHalves;
using avx2::MaxLane;
using avx2::SumLanes;

constexpr int kGroup = 8;  // tokens whose scores fill one vector

// Where a tile's tokens lie: K of token t at rows[t], V at rows[t] + to_values.
struct TileRows {
  const uint8_t* rows[kAttentionTile];
};

BATON_INLINE void FindRows(const AttentionArgs& args, int first_token, int tokens, TileRows& tile) {
  const int64_t row_bytes = int64_t{args.head_dim} * (args.f16 ? 2 : 4);
  int block = first_token / args.block_size;
  int offset = first_token % args.block_size;
  const uint8_t* row = args.k + args.block_table[block] * args.block_bytes + offset * row_bytes;
  for (int t = 0; t < tokens; ++t, row += row_bytes) {
    if (offset++ == args.block_size) {
      row = args.k + args.block_table[++block] * args.block_bytes;
      offset = 1;
    }
    tile.rows[t] = row;
  }
  for (int t = tokens; t < kAttentionTile; ++t) tile.rows[t] = tile.rows[0];  // read, and not used
}

template <bool kF16>
BATON_INLINE __m256 Load8(const uint8_t* row, int d) {
  if constexpr (kF16) return LoadHalves(row + d * 2);
  return _mm256_loadu_ps(reinterpret_cast<const float*>(row) + d);
}

// Adds neighbours: [a0+a1, a2+a3, b0+b1, b2+b3 | the same of the upper halves].
BATON_INLINE __m256 AddNeighbours(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x88), _mm256_shuffle_ps(a, b, 0xdd));
}
BATON_INLINE __m256 AddLanes4(__m256 a, __m256 b, __m256 c, __m256 d) {
  return AddNeighbours(AddNeighbours(a, b), AddNeighbours(c, d));
}
BATON_INLINE __m256 JoinHalves(__m256 low, __m256 high) {
  return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

// The running softmax of one query head.
struct Running {
  float maximum;
  float sum;
};

// Turns scores of a tile's first `tokens` tokens into weights relative to the new maximum; returns the factor for what
// was summed before.
BATON_INLINE __m256 ToWeights(float* scores, int tokens, Running& running) {
  const __m256 none = _mm256_set1_ps(-__builtin_inff());
  __m256 score[4];
  __m256 largest = none;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    score[i] = _mm256_load_ps(scores + i * 8);
    if (tokens < kAttentionTile) {
      const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      const __m256i beyond = _mm256_cmpgt_epi32(lane, _mm256_set1_epi32(tokens - i * 8 - 1));
      score[i] = _mm256_blendv_ps(score[i], none, _mm256_castsi256_ps(beyond));
    }
    largest = _mm256_max_ps(largest, score[i]);
  }
  const float tile_maximum = MaxLane(largest);
  __m256 correction = _mm256_set1_ps(1.0f);
  if (!(tile_maximum <= running.maximum)) {
    correction = Exp(_mm256_sub_ps(_mm256_set1_ps(running.maximum), _mm256_set1_ps(tile_maximum)));
    running.maximum = tile_maximum;
  }
  const __m256 shift = _mm256_set1_ps(running.maximum);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    score[i] = Exp(_mm256_sub_ps(score[i], shift));
    _mm256_store_ps(scores + i * 8, score[i]);
  }
  const float added = SumLanes(_mm256_add_ps(_mm256_add_ps(score[0], score[1]), _mm256_add_ps(score[2], score[3])));
  running.sum = __builtin_fmaf(running.sum, _mm256_cvtss_f32(correction), added);
  return correction;
}

// ---- many queries: a widened tile ----

// K → [4 groups][dim / 8][8 tokens][8], so that scores read it in one direction; V → [tokens][dim].
template <bool kF16>
void Widen(const AttentionArgs& args, const TileRows& tile, int tokens, float* k, float* v) {
  const int dim = args.head_dim;
  const int64_t to_values = args.v - args.k;
  for (int t = 0; t < tokens; ++t) {
    float* group = k + t / kGroup * kGroup * dim + t % kGroup * 8;
    for (int d = 0; d < dim; d += 8) {
      _mm256_store_ps(group + d * kGroup, Load8<kF16>(tile.rows[t], d));
      _mm256_store_ps(v + t * dim + d, Load8<kF16>(tile.rows[t] + to_values, d));
    }
  }
}

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

// Each of scores, weights and values for all rows, not all for each row: the chain from scores to weights is long, and
// only independent rows can fill its waits.
template <bool kF16>
void AttendMany(const AttentionArgs& args, const float* q, float* values, Running* running) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  const int end = args.first_position + args.queries;  // tokens that the last query sees
  float* k = args.scratch;
  float* v = k + kAttentionTile * dim;
  float* weights = values + rows * dim + 2 * rows + 8;  // [rows][kAttentionTile]
  weights = reinterpret_cast<float*>(reinterpret_cast<uintptr_t>(weights) & ~uintptr_t{31});
  float* corrections = weights + rows * kAttentionTile;  // [rows]
  TileRows tile;
  for (int first = 0; first < end; first += kAttentionTile) {
    const int loaded = end - first < kAttentionTile ? end - first : kAttentionTile;
    FindRows(args, first, loaded, tile);
    Widen<kF16>(args, tile, loaded, k, v);
    const int hidden = first - args.first_position;  // queries before it see nothing of this tile
    const int first_row = hidden > 0 ? hidden * args.heads : 0;
    auto visible = [&](int row) {
      const int seen = args.first_position + row / args.heads + 1 - first;
      return seen < loaded ? seen : loaded;
    };
    for (int row = first_row; row < rows; ++row) {
      for (int t = 0; t < visible(row); t += kGroup) {
        _mm256_store_ps(weights + row * kAttentionTile + t, Scores8(q + row * dim, k + t * dim, dim));
      }
    }
    for (int row = first_row; row < rows; ++row) {
      corrections[row] = _mm256_cvtss_f32(ToWeights(weights + row * kAttentionTile, visible(row), running[row]));
    }
    for (int row = first_row; row < rows; ++row) {
      const __m256 correction = _mm256_broadcast_ss(corrections + row);
      const float* row_weights = weights + row * kAttentionTile;
      float* row_values = values + row * dim;
      int d = 0;
      for (; d + 64 <= dim; d += 64) AddValues<8>(row_weights, v + d, visible(row), dim, correction, row_values + d);
      for (; d < dim; d += 8) AddValues<1>(row_weights, v + d, visible(row), dim, correction, row_values + d);
    }
  }
}

// ---- one query: K and V as they lie ----

// Tiles are pages apart, where no hardware prefetcher follows: 32 dimensions of a row of the next tile.
template <bool kF16>
BATON_INLINE void Prefetch32(const uint8_t* row, int d) {
  const char* data = reinterpret_cast<const char*>(row) + d * (kF16 ? 2 : 4);
  _mm_prefetch(data, _MM_HINT_T0);
  if constexpr (!kF16) _mm_prefetch(data + 64, _MM_HINT_T0);
}

template <bool kF16, int kHeads>
BATON_INLINE void ScoreDirect(const TileRows& tile, const TileRows& next, int tokens, const float* q, int dim,
                              float (*scores)[kAttentionTile]) {
  for (int t = 0; t < tokens; t += 4) {
    const uint8_t* const* rows = tile.rows + t;
    __m256 sum[kHeads][4];
#pragma GCC unroll 3
    for (int h = 0; h < kHeads; ++h) sum[h][0] = sum[h][1] = sum[h][2] = sum[h][3] = _mm256_setzero_ps();
    for (int first = 0; first < dim; first += 32) {
      for (int i = 0; i < 4; ++i) Prefetch32<kF16>(next.rows[t + i], first);
      const int end = first + 32 < dim ? first + 32 : dim;
      for (int d = first; d < end; d += 8) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const __m256 key = Load8<kF16>(rows[i], d);
#pragma GCC unroll 3
          for (int h = 0; h < kHeads; ++h) {
            sum[h][i] = _mm256_fmadd_ps(_mm256_load_ps(q + h * dim + d), key, sum[h][i]);
            BATON_PIN(sum[h][i]);  // one key at a time: all 16 registers are taken
          }
        }
      }
    }
    for (int h = 0; h < kHeads; ++h) {
      const __m256 half = AddLanes4(sum[h][0], sum[h][1], sum[h][2], sum[h][3]);
      _mm_store_ps(scores[h] + t, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
    }
  }
}

template <bool kF16, int kHeads, int kVectors>
BATON_INLINE void AddValuesDirect(const TileRows& tile, const TileRows& next, int64_t to_values, int d, int tokens,
                                  int dim, const float (*weights)[kAttentionTile], const __m256* correction,
                                  float* values) {
  __m256 sum[kHeads][kVectors];
#pragma GCC unroll 3
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      sum[h][i] = _mm256_mul_ps(_mm256_load_ps(values + h * dim + d + i * 8), correction[h]);
    }
  }
  for (int t = 0; t < tokens; ++t) {
    const uint8_t* row = tile.rows[t] + to_values;
    if constexpr (kVectors == 4) Prefetch32<kF16>(next.rows[t] + to_values, d);
    __m256 weight[kHeads];
#pragma GCC unroll 3
    for (int h = 0; h < kHeads; ++h) weight[h] = _mm256_broadcast_ss(weights[h] + t);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      const __m256 value = Load8<kF16>(row, d + i * 8);
#pragma GCC unroll 3
      for (int h = 0; h < kHeads; ++h) {
        sum[h][i] = _mm256_fmadd_ps(weight[h], value, sum[h][i]);
        BATON_PIN(sum[h][i]);
      }
    }
  }
#pragma GCC unroll 3
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) _mm256_store_ps(values + h * dim + d + i * 8, sum[h][i]);
  }
}

template <bool kF16, int kHeads>
void AddTileDirect(const TileRows& tile, const TileRows& next, int64_t to_values, int tokens, const float* q, int dim,
                   Running* running, float* values) {
  alignas(32) float weights[kHeads][kAttentionTile] = {};
  ScoreDirect<kF16, kHeads>(tile, next, tokens, q, dim, weights);
  __m256 correction[kHeads];
  for (int h = 0; h < kHeads; ++h) correction[h] = ToWeights(weights[h], tokens, running[h]);
  int d = 0;
  for (; d + 32 <= dim; d += 32) {
    AddValuesDirect<kF16, kHeads, 4>(tile, next, to_values, d, tokens, dim, weights, correction, values);
  }
  for (; d < dim; d += 8) {
    AddValuesDirect<kF16, kHeads, 1>(tile, next, to_values, d, tokens, dim, weights, correction, values);
  }
}

template <bool kF16>
void AttendOne(const AttentionArgs& args, const float* q, float* values, Running* running) {
  const int dim = args.head_dim;
  const int64_t to_values = args.v - args.k;
  const int end = args.first_position + 1;
  auto tokens_from = [&](int first) { return end - first < kAttentionTile ? end - first : kAttentionTile; };
  TileRows tiles[2];
  FindRows(args, 0, tokens_from(0), tiles[0]);
  for (int first = 0, turn = 0; first < end; first += kAttentionTile, turn ^= 1) {
    const bool last = first + kAttentionTile >= end;
    if (!last) FindRows(args, first + kAttentionTile, tokens_from(first + kAttentionTile), tiles[turn ^ 1]);
    const TileRows& tile = tiles[turn];
    const TileRows& next = tiles[last ? turn : turn ^ 1];
    const int tokens = tokens_from(first);
    int head = 0;
    for (; head + 3 <= args.heads; head += 3) {
      AddTileDirect<kF16, 3>(tile, next, to_values, tokens, q + head * dim, dim, running + head, values + head * dim);
    }
    if (args.heads - head == 2) {
      AddTileDirect<kF16, 2>(tile, next, to_values, tokens, q + head * dim, dim, running + head, values + head * dim);
    } else if (args.heads - head == 1) {
      AddTileDirect<kF16, 1>(tile, next, to_values, tokens, q + head * dim, dim, running + head, values + head * dim);
    }
  }
}

}  // namespace

void AttentionAvx2(const AttentionArgs& args) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  float* q = args.scratch + 2 * kAttentionTile * dim;
  float* values = q + rows * dim;
  auto* running = reinterpret_cast<Running*>(values + rows * dim);
  const __m256 scale = _mm256_set1_ps(args.scale);
  for (int row = 0; row < rows; ++row) {
    const float* source = args.q + row / args.heads * args.q_stride + row % args.heads * dim;
    for (int d = 0; d < dim; d += 8) {
      _mm256_store_ps(q + row * dim + d, _mm256_mul_ps(_mm256_loadu_ps(source + d), scale));
      _mm256_store_ps(values + row * dim + d, _mm256_setzero_ps());
    }
    running[row] = {-__builtin_inff(), 0};
  }
  if (args.queries == 1) {
    args.f16 ? AttendOne<true>(args, q, values, running) : AttendOne<false>(args, q, values, running);
  } else {
    args.f16 ? AttendMany<true>(args, q, values, running) : AttendMany<false>(args, q, values, running);
  }
  for (int row = 0; row < rows; ++row) {
    float* out = args.out + row / args.heads * args.out_stride + row % args.heads * dim;
    const __m256 inverse = _mm256_set1_ps(1.0f / running[row].sum);
    for (int d = 0; d < dim; d += 8) {
      _mm256_storeu_ps(out + d, _mm256_mul_ps(_mm256_load_ps(values + row * dim + d), inverse));
    }
  }
}

}  // namespace baton::cpu

// What both variants of attention for AVX2 share: where a tile's tokens lie, and the running softmax. Included by
// attention_*_avx2.cc and attention_many_avx512.cc only; internal linkage, as in avx2.h.
#pragma once

#include <cstring>

#include "backend/cpu/avx2.h"
#include "backend/cpu/int8_row.h"

namespace baton::cpu {
namespace avx2 {

constexpr int kGroup = 8;  // tokens whose scores fill one vector

// Where a tile's tokens lie: K of token t at rows[t], V at rows[t] + to_values.
struct TileRows {
  const uint8_t* rows[kAttentionTile];
  alignas(32) float key_scales[kAttentionTile];  // of kI8
  alignas(32) float key_highs[kAttentionTile];   // what element key_indices[t] has beyond its 8 bits
  alignas(32) int32_t key_indices[kAttentionTile];
  alignas(32) float value_scales[kAttentionTile];
};

BATON_INLINE void FindRows(const AttentionArgs& args, int first_token, int tokens, TileRows& tile) {
  const int64_t row_bytes = args.row_bytes;
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

template <KvType kKv>
BATON_INLINE void LoadScales(const AttentionArgs& args, TileRows& tile) {
  if constexpr (kKv != KvType::kI8) return;
  const int64_t to_values = args.v - args.k;
  for (int t = 0; t < kAttentionTile; ++t) {
    std::memcpy(tile.key_indices + t, tile.rows[t] + args.head_dim, 4);
    std::memcpy(tile.value_scales + t, tile.rows[t] + to_values + args.head_dim, 4);
  }
  for (int t = 0; t < kAttentionTile; t += 8) {
    __m256i* indices = reinterpret_cast<__m256i*>(tile.key_indices + t);
    const __m256i tail = _mm256_load_si256(indices);
    _mm256_store_ps(tile.key_scales + t, _mm256_castsi256_ps(_mm256_slli_epi32(tail, 16)));
    _mm256_store_si256(indices, _mm256_and_si256(_mm256_srli_epi32(tail, 16), _mm256_set1_epi32(255)));
    const __m256 high = _mm256_cvtepi32_ps(_mm256_srai_epi32(tail, 24));
    _mm256_store_ps(tile.key_highs + t, _mm256_mul_ps(high, _mm256_set1_ps(128.0f)));
  }
}

template <KvType kKv>
BATON_INLINE __m256 Load8(const uint8_t* row, int d) {
  if constexpr (kKv == KvType::kF16) return LoadHalves(row + d * 2);
  if constexpr (kKv == KvType::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(row) + d);
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + d))));
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

// Parts of the scratch, for rows = queries × heads.
struct State {
  float* q;            // [rows][dim], scaled
  float* values;       // [rows][dim], of a section
  Running* running;    // [rows], of a section
  float* total;        // [rows][dim], of the sections before
  Running* totals;     // [rows]
  float* weights;      // [rows][kAttentionTile]
  float* corrections;  // [rows]

  __attribute__((always_inline)) State(const AttentionArgs& args, int rows) {
    q = args.scratch + 2 * kAttentionTile * args.head_dim;
    values = q + rows * args.head_dim;
    total = values + rows * args.head_dim;
    weights = total + rows * args.head_dim;  // head_dim is a multiple of 8: aligned to 32 bytes
    corrections = weights + rows * kAttentionTile;
    running = reinterpret_cast<Running*>(corrections + rows);
    totals = running + rows;
  }
};

// Turns scores of a tile's first `tokens` tokens into weights relative to the new maximum; returns the factor for what
// was summed before. `q`: the row's query.
template <KvType kKv>
BATON_INLINE __m256 ToWeights(const TileRows& tile, const float* q, float* scores, int tokens, Running& running) {
  const __m256 none = _mm256_set1_ps(-__builtin_inff());
  __m256 score[4];
  __m256 largest = none;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    score[i] = _mm256_load_ps(scores + i * 8);
    if constexpr (kKv == KvType::kI8) {
      const __m256i indices = _mm256_load_si256(reinterpret_cast<const __m256i*>(tile.key_indices + i * 8));
      const __m256 query = _mm256_i32gather_ps(q, indices, 4);
      score[i] = _mm256_fmadd_ps(query, _mm256_load_ps(tile.key_highs + i * 8), score[i]);
      score[i] = _mm256_mul_ps(score[i], _mm256_load_ps(tile.key_scales + i * 8));
    }
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
    __m256 weight = score[i];
    if constexpr (kKv == KvType::kI8) weight = _mm256_mul_ps(weight, _mm256_load_ps(tile.value_scales + i * 8));
    _mm256_store_ps(scores + i * 8, weight);
  }
  const float added = SumLanes(_mm256_add_ps(_mm256_add_ps(score[0], score[1]), _mm256_add_ps(score[2], score[3])));
  running.sum = __builtin_fmaf(running.sum, _mm256_cvtss_f32(correction), added);
  return correction;
}

}  // namespace avx2

// Adds tokens [begin, end) of one section to `state`, which was reset for it.
void AttendManyAvx2(const AttentionArgs& args, int begin, int end, const avx2::State& state);
void AttendManyAvx512(const AttentionArgs& args, int begin, int end, const avx2::State& state);
void AttendOneAvx2(const AttentionArgs& args, int begin, int end, const avx2::State& state);

}  // namespace baton::cpu

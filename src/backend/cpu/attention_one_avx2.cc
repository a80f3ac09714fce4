// Attention of one query (decode): K and V are read as they lie, for up to three heads at a time, and prefetched.
#include "backend/cpu/attention_avx2.h"

namespace baton::cpu {
namespace {

using avx2::AddLanes4;
using avx2::FindRows;
using avx2::Load8;
using avx2::LoadScales;
using avx2::Running;
using avx2::State;
using avx2::TileRows;
using avx2::ToWeights;

// Tiles are pages apart, where no hardware prefetcher follows: 32 dimensions of a row of the next tile.
template <KvType kKv>
BATON_INLINE void Prefetch32(const uint8_t* row, int d) {
  const char* data = reinterpret_cast<const char*>(row) + d * (kKv == KvType::kF32 ? 4 : kKv == KvType::kF16 ? 2 : 1);
  _mm_prefetch(data, _MM_HINT_T0);
  if constexpr (kKv == KvType::kF32) _mm_prefetch(data + 64, _MM_HINT_T0);
}

template <KvType kKv, int kHeads>
BATON_INLINE void ScoreDirect(const TileRows& tile, const TileRows& next, int tokens, const float* q, int dim,
                              float (*scores)[kAttentionTile]) {
  for (int t = 0; t < tokens; t += 4) {
    const uint8_t* const* rows = tile.rows + t;
    __m256 sum[kHeads][4];
#pragma GCC unroll 3
    for (int h = 0; h < kHeads; ++h) sum[h][0] = sum[h][1] = sum[h][2] = sum[h][3] = _mm256_setzero_ps();
    for (int first = 0; first < dim; first += 32) {
      for (int i = 0; i < 4; ++i) Prefetch32<kKv>(next.rows[t + i], first);
      const int end = first + 32 < dim ? first + 32 : dim;
      for (int d = first; d < end; d += 8) {
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const __m256 key = Load8<kKv>(rows[i], d);
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

template <KvType kKv, int kHeads, int kVectors>
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
    if constexpr (kVectors == 4) Prefetch32<kKv>(next.rows[t] + to_values, d);
    __m256 weight[kHeads];
#pragma GCC unroll 3
    for (int h = 0; h < kHeads; ++h) weight[h] = _mm256_broadcast_ss(weights[h] + t);
#pragma GCC unroll 4
    for (int i = 0; i < kVectors; ++i) {
      const __m256 value = Load8<kKv>(row, d + i * 8);
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

template <KvType kKv, int kHeads>
void AddTileDirect(const TileRows& tile, const TileRows& next, int64_t to_values, int tokens, const float* q, int dim,
                   Running* running, float* values) {
  alignas(32) float weights[kHeads][kAttentionTile] = {};
  ScoreDirect<kKv, kHeads>(tile, next, tokens, q, dim, weights);
  __m256 correction[kHeads];
  for (int h = 0; h < kHeads; ++h) correction[h] = ToWeights<kKv>(tile, q + h * dim, weights[h], tokens, running[h]);
  int d = 0;
  for (; d + 32 <= dim; d += 32) {
    AddValuesDirect<kKv, kHeads, 4>(tile, next, to_values, d, tokens, dim, weights, correction, values);
  }
  for (; d < dim; d += 8) {
    AddValuesDirect<kKv, kHeads, 1>(tile, next, to_values, d, tokens, dim, weights, correction, values);
  }
}

template <KvType kKv>
void AttendOne(const AttentionArgs& args, int begin, int end, const State& state) {
  const int dim = args.head_dim;
  const int64_t to_values = args.v - args.k;
  const int visible = args.first_position + 1;  // the next section's tiles are prefetched too
  const float* q = state.q;
  float* values = state.values;
  Running* running = state.running;
  auto tokens_from = [&](int first) { return visible - first < kAttentionTile ? visible - first : kAttentionTile; };
  TileRows tiles[2];
  FindRows(args, begin, tokens_from(begin), tiles[0]);
  for (int first = begin, turn = 0; first < end; first += kAttentionTile, turn ^= 1) {
    const bool last = first + kAttentionTile >= visible;
    if (!last) FindRows(args, first + kAttentionTile, tokens_from(first + kAttentionTile), tiles[turn ^ 1]);
    LoadScales<kKv>(args, tiles[turn]);
    const TileRows& tile = tiles[turn];
    const TileRows& next = tiles[last ? turn : turn ^ 1];
    const int tokens = tokens_from(first);
    int head = 0;
    for (; head + 3 <= args.heads; head += 3) {
      AddTileDirect<kKv, 3>(tile, next, to_values, tokens, q + head * dim, dim, running + head, values + head * dim);
    }
    if (args.heads - head == 2) {
      AddTileDirect<kKv, 2>(tile, next, to_values, tokens, q + head * dim, dim, running + head, values + head * dim);
    } else if (args.heads - head == 1) {
      AddTileDirect<kKv, 1>(tile, next, to_values, tokens, q + head * dim, dim, running + head, values + head * dim);
    }
  }
}

}  // namespace

void AttendOneAvx2(const AttentionArgs& args, int begin, int end, const avx2::State& state) {
  switch (args.kv) {
    case KvType::kF32:
      return AttendOne<KvType::kF32>(args, begin, end, state);
    case KvType::kF16:
      return AttendOne<KvType::kF16>(args, begin, end, state);
    case KvType::kI8:
      return AttendOne<KvType::kI8>(args, begin, end, state);
  }
}

}  // namespace baton::cpu

// Attention of many queries: a tile of K and V is widened to floats once, and read by all.
#include "backend/cpu/attention_avx2.h"

namespace baton::cpu {
namespace {

using avx2::AddLanes4;
using avx2::FindRows;
using avx2::JoinHalves;
using avx2::kGroup;
using avx2::Load8;
using avx2::LoadScales;
using avx2::Running;
using avx2::State;
using avx2::TileRows;
using avx2::ToWeights;

// K → [4 groups][dim / 8][8 tokens][8], so that scores read it in one direction; V → [tokens][dim].
template <KvType kKv>
void Widen(const AttentionArgs& args, const TileRows& tile, int tokens, float* k, float* v) {
  const int dim = args.head_dim;
  const int64_t to_values = args.v - args.k;
  for (int t = 0; t < tokens; ++t) {
    float* group = k + t / kGroup * kGroup * dim + t % kGroup * 8;
    for (int d = 0; d < dim; d += 8) {
      _mm256_store_ps(group + d * kGroup, Load8<kKv>(tile.rows[t], d));
      _mm256_store_ps(v + t * dim + d, Load8<kKv>(tile.rows[t] + to_values, d));
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
template <KvType kKv>
void AttendMany(const AttentionArgs& args, int begin, int end, const State& state) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  const float* q = state.q;
  float* k = args.scratch;
  float* v = k + kAttentionTile * dim;
  float* weights = state.weights;  // [rows][kAttentionTile]
  float* values = state.values;
  Running* running = state.running;
  float* corrections = state.corrections;  // [rows]
  TileRows tile;
  for (int first = begin; first < end; first += kAttentionTile) {
    const int loaded = end - first < kAttentionTile ? end - first : kAttentionTile;
    FindRows(args, first, loaded, tile);
    LoadScales<kKv>(args, tile);
    Widen<kKv>(args, tile, loaded, k, v);
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
      corrections[row] =
          _mm256_cvtss_f32(ToWeights<kKv>(tile, weights + row * kAttentionTile, visible(row), running[row]));
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

}  // namespace

void AttendManyAvx2(const AttentionArgs& args, int begin, int end, const avx2::State& state) {
  switch (args.kv) {
    case KvType::kF32:
      return AttendMany<KvType::kF32>(args, begin, end, state);
    case KvType::kF16:
      return AttendMany<KvType::kF16>(args, begin, end, state);
    case KvType::kI8:
      return AttendMany<KvType::kI8>(args, begin, end, state);
  }
}

}  // namespace baton::cpu

// Attention of many queries: a tile of K and V is widened to floats once, and read by all. Included by
// attention_many_*.cc only, which say how wide its inner loops are; internal linkage, as in avx2.h.
#pragma once

#include "backend/cpu/attention_avx2.h"

namespace baton::cpu {
namespace {

using avx2::FindRows;
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

// Ops has, for one row:
//   Scores(q, k, tokens, dim, scores): a multiple of 8 of them, whose last are of no token;
//   AddValues(weights, v, tokens, dim, correction, values): values = values × correction + Σ weights[t] × v[t].
// Each of scores, weights and values for all rows, not all for each row: the chain from scores to weights is long, and
// only independent rows can fill its waits.
template <typename Ops, KvType kKv>
void AttendTiles(const AttentionArgs& args, int begin, int end, const State& state) {
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
      Ops::Scores(q + row * dim, k, visible(row), dim, weights + row * kAttentionTile);
    }
    for (int row = first_row; row < rows; ++row) {
      corrections[row] = _mm256_cvtss_f32(
          ToWeights<kKv>(tile, q + row * dim, weights + row * kAttentionTile, visible(row), running[row]));
    }
    for (int row = first_row; row < rows; ++row) {
      Ops::AddValues(weights + row * kAttentionTile, v, visible(row), dim, corrections[row], values + row * dim);
    }
  }
}

template <typename Ops>
void AttendMany(const AttentionArgs& args, int begin, int end, const State& state) {
  switch (args.kv) {
    case KvType::kF32:
      return AttendTiles<Ops, KvType::kF32>(args, begin, end, state);
    case KvType::kF16:
      return AttendTiles<Ops, KvType::kF16>(args, begin, end, state);
    case KvType::kI8:
      return AttendTiles<Ops, KvType::kI8>(args, begin, end, state);
  }
}

}  // namespace
}  // namespace baton::cpu

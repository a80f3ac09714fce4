// Attention in portable C++: softmax over tiles of tokens from position 0 with a running maximum, sections merged in
// order.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cpu/float16.h"
#include "backend/cpu/int8_row.h"
#include "backend/cpu/plain.h"

namespace baton::cpu {
namespace {

// A tile of K or V as floats, and the scale of each row.
struct Tile {
  float* rows;  // [tokens][head_dim]
  float scales[kAttentionTile];
  float highs[kAttentionTile];  // what element indices[t] has beyond its 8 bits
  int32_t indices[kAttentionTile];
};

// Of a row of KvType::kI8.
void LoadTail(const uint8_t* data, bool key, int t, Tile& tile) {
  uint32_t tail;
  std::memcpy(&tail, data, 4);
  tile.scales[t] = std::bit_cast<float>(key ? tail << 16 : tail);
  if (!key) return;
  tile.indices[t] = static_cast<int32_t>(tail >> 16 & 255);
  tile.highs[t] = 128.0f * static_cast<float>(static_cast<int8_t>(tail >> 24));
}

void LoadTile(const AttentionArgs& args, const uint8_t* plane, int first_token, int tokens, Tile& tile) {
  float* out = tile.rows;
  for (int t = 0; t < tokens; ++t, out += args.head_dim) {
    const int token = first_token + t;
    const uint8_t* row = plane + args.block_table[token / args.block_size] * args.block_bytes +
                         int64_t{token % args.block_size} * args.row_bytes;
    tile.scales[t] = 1;
    tile.highs[t] = 0;
    tile.indices[t] = 0;
    if (args.kv == KvType::kI8) LoadTail(row + args.head_dim, plane == args.k, t, tile);
    for (int d = 0; d < args.head_dim; ++d) {
      uint16_t bits;
      switch (args.kv) {
        case KvType::kF32:
          std::memcpy(out + d, row + d * 4, 4);
          break;
        case KvType::kF16:
          std::memcpy(&bits, row + d * 2, 2);
          out[d] = HalfToFloat(bits);
          break;
        case KvType::kI8:
          out[d] = static_cast<int8_t>(row[d]);
      }
    }
  }
}

// The softmax of one query head so far.
struct Running {
  float maximum;
  float sum;
};

// Adds `tokens` tokens of a tile. A row's scale multiplies its score and its weight.
void AddTile(const float* q, const Tile& k, const Tile& v, int tokens, int head_dim, Running& running, float* values) {
  float weights[kAttentionTile];
  float maximum = running.maximum;
  for (int t = 0; t < tokens; ++t) {
    float lanes[8] = {};
    for (int d = 0; d < head_dim; ++d) lanes[d % 8] += q[d] * k.rows[t * head_dim + d];
    weights[t] = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    weights[t] = (weights[t] + q[k.indices[t]] * k.highs[t]) * k.scales[t];
    maximum = std::max(maximum, weights[t]);
  }
  const float correction = Exp(running.maximum - maximum);
  float sum = 0;
  for (int t = 0; t < tokens; ++t) {
    weights[t] = Exp(weights[t] - maximum);
    sum += weights[t];
    weights[t] *= v.scales[t];
  }
  running.maximum = maximum;
  running.sum = running.sum * correction + sum;
  for (int d = 0; d < head_dim; ++d) values[d] *= correction;
  for (int t = 0; t < tokens; ++t) {
    for (int d = 0; d < head_dim; ++d) values[d] += weights[t] * v.rows[t * head_dim + d];
  }
}

// (totals, total) += (running, values) of a later section.
void Merge(const Running& running, const float* values, int head_dim, Running& totals, float* total) {
  const float maximum = std::max(totals.maximum, running.maximum);
  const float before = Exp(totals.maximum - maximum);
  const float added = Exp(running.maximum - maximum);
  for (int d = 0; d < head_dim; ++d) total[d] = total[d] * before + values[d] * added;
  totals.sum = totals.sum * before + running.sum * added;
  totals.maximum = maximum;
}

// Parts of the scratch, for rows = queries × heads.
struct State {
  Tile k, v;
  float* q;          // [rows][head_dim], scaled
  float* values;     // [rows][head_dim], of a section
  float* total;      // [rows][head_dim], of the sections before
  Running* running;  // [rows], of a section
  Running* totals;   // [rows]
  State(const AttentionArgs& args, int rows) {
    const int64_t floats = int64_t{rows} * args.head_dim;
    k.rows = args.scratch;
    v.rows = k.rows + kAttentionTile * args.head_dim;
    q = v.rows + kAttentionTile * args.head_dim;
    values = q + floats;
    total = values + floats;
    running = reinterpret_cast<Running*>(total + floats);
    totals = running + rows;
  }
};

void Attend(const AttentionArgs& args, int begin, int end, State& state) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  std::fill_n(state.values, rows * dim, 0.0f);
  std::fill_n(state.running, rows, Running{-INFINITY, 0});
  for (int first = begin; first < end; first += kAttentionTile) {
    const int loaded = std::min(kAttentionTile, end - first);
    LoadTile(args, args.k, first, loaded, state.k);
    LoadTile(args, args.v, first, loaded, state.v);
    for (int row = 0; row < rows; ++row) {
      const int visible = std::min(loaded, args.first_position + row / args.heads + 1 - first);
      if (visible <= 0) continue;
      AddTile(state.q + row * dim, state.k, state.v, visible, dim, state.running[row], state.values + row * dim);
    }
  }
}

// One query's sections, unmerged.
void AttendSections(const AttentionArgs& args, int end, State& state) {
  const int dim = args.head_dim;
  float* partial = args.partials;
  for (int section = args.first_section; section < args.first_section + args.sections; ++section) {
    const int begin = section * kAttentionSection;
    Attend(args, begin, std::min(end, begin + kAttentionSection), state);
    for (int head = 0; head < args.heads; ++head, partial += dim + 2) {
      std::copy_n(state.values + head * dim, dim, partial);
      partial[dim] = state.running[head].maximum;
      partial[dim + 1] = state.running[head].sum;
    }
  }
}

}  // namespace

void AttentionPlain(const AttentionArgs& args) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  const int end = args.first_position + args.queries;  // tokens that the last query sees
  State state(args, rows);
  for (int row = 0; row < rows; ++row) {
    const float* source = args.q + row / args.heads * args.q_stride + row % args.heads * dim;
    for (int d = 0; d < dim; ++d) state.q[row * dim + d] = source[d] * args.scale;
  }
  if (args.partials != nullptr) return AttendSections(args, end, state);
  for (int begin = 0; begin < end; begin += kAttentionSection) {
    Attend(args, begin, std::min(end, begin + kAttentionSection), state);
    for (int row = 0; row < rows; ++row) {
      float* total = state.total + row * dim;
      if (begin == 0) {
        state.totals[row] = state.running[row];
        std::copy_n(state.values + row * dim, dim, total);
      } else if (args.first_position + row / args.heads >= begin) {
        Merge(state.running[row], state.values + row * dim, dim, state.totals[row], total);
      }
    }
  }
  for (int row = 0; row < rows; ++row) {
    float* out = args.out + row / args.heads * args.out_stride + row % args.heads * dim;
    for (int d = 0; d < dim; ++d) out[d] = state.total[row * dim + d] / state.totals[row].sum;
  }
}

void MergeSectionsPlain(float* partials, int sections, int heads, int dim, float* out) {
  for (int head = 0; head < heads; ++head) {
    float* total = partials + head * (dim + 2);
    Running totals = {total[dim], total[dim + 1]};
    for (int section = 1; section < sections; ++section) {
      const float* partial = partials + (section * heads + head) * (dim + 2);
      Merge({partial[dim], partial[dim + 1]}, partial, dim, totals, total);
    }
    for (int d = 0; d < dim; ++d) out[head * dim + d] = total[d] / totals.sum;
  }
}

}  // namespace baton::cpu

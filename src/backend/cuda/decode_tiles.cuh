// What decode attention is made of: its shared memory, the walk over its flat axis, and products of 16 tokens of one KV
// head with up to eight query heads. For decode_attention.cu and invariant_attention.cu.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/kernels.h"

namespace baton::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kConsumers = kWarps * 32;
constexpr int kStages = 3;
constexpr int kUnit = 16;  // tokens
constexpr int kPairUnits = kDecodePairUnits;
constexpr int kGroup = 8;  // most query heads of one KV head
constexpr float kMinusInfinity = -1e30f;
constexpr float kLazyRescale = 8.f;  // rescale only when a maximum grew by more than 2^8

template <bool kFp8, int kDim>
struct Shape {
  static constexpr int kRowBytes = kFp8 ? kDim : 2 * kDim;
  static constexpr int kPlaneBytes = kBlockTokens * kRowBytes;
  static constexpr int kStageBytes = 2 * kPlaneBytes;
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kMmas = kDim / 16;    // both products take this many m16n8k16 for 16 tokens
  static constexpr int kPartRow = kDim + 2;  // sums of one head, then maximum and sum of weights
  static constexpr int kPart = kGroup * kPartRow;
  static constexpr int kSharedBytes = kStages * kStageBytes + kWarps * kPart * 4 + 32 * kStages + 32;
};

// Walks the flat axis; stops at tokens only.
struct Cursor {
  const int32_t* prefix;
  int sequences, kv_heads;
  int sequence, head, units;  // units: of this sequence and head, those that stand for its beginning included
  int unit;                   // of tokens, in this sequence and head
  int x;                      // on the axis

  __device__ Cursor(const DecodeAttentionArgs& args, int start)
      : prefix(args.unit_prefix), sequences(args.sequences), kv_heads(args.cache.kv_heads), sequence(0), x(start) {
    while (sequence + 1 < sequences && prefix[sequence + 1] * kv_heads <= start) ++sequence;
    units = prefix[sequence + 1] - prefix[sequence];
    const int rest = start - prefix[sequence] * kv_heads;
    head = units > 0 ? rest / units : 0;
    unit = units > 0 ? rest - head * units - kPairUnits : 0;
    SkipBeginning();
  }
  __device__ int PairBegin() const { return prefix[sequence] * kv_heads + head * units; }
  __device__ int TokenUnits() const { return units - kPairUnits; }
  __device__ void Advance(int n) {
    unit += n;
    x += n;
    if (unit < units - kPairUnits) return;
    unit = -kPairUnits;
    if (++head == kv_heads) {
      head = 0;
      do {
        ++sequence;
        units = sequence < sequences ? prefix[sequence + 1] - prefix[sequence] : 0;
      } while (sequence < sequences && units == 0);
    }
    SkipBeginning();
  }
  __device__ void SkipBeginning() {
    if (unit >= 0) return;
    x -= unit;
    unit = 0;
  }
};

__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// The dimensions that lane column c holds of the query and of each key, in the order in which the products take them:
// kDim / 4 consecutive ones. Any order serves as long as both agree.
template <bool kFp8, int kDim>
__device__ __forceinline__ void LoadQuery(const __half* query, bool exists, int c, uint32_t (&b)[kDim / 16][2]) {
#pragma unroll
  for (int i = 0; i < kDim / 32; ++i) {
    uint4 v = make_uint4(0, 0, 0, 0);
    if (exists) v = __ldcg(reinterpret_cast<const uint4*>(query + c * (kDim / 4) + i * 8));
    b[2 * i][0] = v.x;
    b[2 * i][1] = v.y;
    b[2 * i + 1][0] = v.z;
    b[2 * i + 1][1] = v.w;
  }
}

// Keys of 16 tokens (rows g and g + 8 of the tile): the A operands of the products that one 16-byte chunk of a row
// gives, the h-th of lane column c.
template <bool kFp8>
inline constexpr int kChunkProducts = kFp8 ? 4 : 2;
template <bool kFp8, int kDim>
__device__ __forceinline__ void KeyOperands(const uint8_t* tile, int g, int c, int h,
                                            uint32_t (&a)[kChunkProducts<kFp8>][4]) {
  using S = Shape<kFp8, kDim>;
  const uint8_t* row0 = tile + g * S::kRowBytes;
  const uint8_t* row1 = row0 + 8 * S::kRowBytes;
  const int at = SwizzleChunk(c * (S::kChunks / 4) + h, g, S::kChunks) * 16;  // g + 8 has the same swizzle
  const uint4 k0 = *reinterpret_cast<const uint4*>(row0 + at);
  const uint4 k1 = *reinterpret_cast<const uint4*>(row1 + at);
  const uint32_t w0[4] = {k0.x, k0.y, k0.z, k0.w};
  const uint32_t w1[4] = {k1.x, k1.y, k1.z, k1.w};
#pragma unroll
  for (int i = 0; i < kChunkProducts<kFp8>; ++i) {
    if constexpr (kFp8) {
      Fp8ToHalf(w0[i], a[i][0], a[i][2]);
      Fp8ToHalf(w1[i], a[i][1], a[i][3]);
    } else {
      a[i][0] = Bf16ToHalf(w0[2 * i]);
      a[i][1] = Bf16ToHalf(w1[2 * i]);
      a[i][2] = Bf16ToHalf(w0[2 * i + 1]);
      a[i][3] = Bf16ToHalf(w1[2 * i + 1]);
    }
  }
}

// scores of 16 tokens against the 8 heads
template <bool kFp8, int kDim>
__device__ __forceinline__ void KeyProduct(const uint8_t* tile, int g, int c, const uint32_t (&query)[kDim / 16][2],
                                           float (&scores)[4]) {
  constexpr int kProducts = kChunkProducts<kFp8>;
#pragma unroll
  for (int h = 0; h < Shape<kFp8, kDim>::kChunks / 4; ++h) {
    uint32_t a[kProducts][4];
    KeyOperands<kFp8, kDim>(tile, g, c, h, a);
#pragma unroll
    for (int i = 0; i < kProducts; ++i) Mma(scores, a[i], query[h * kProducts + i][0], query[h * kProducts + i][1]);
  }
}

// Values of 16 tokens. Lane row g holds dimensions g × kDim / 8 …; product m covers two of them.
template <bool kFp8, int kDim>
struct ValueTile {
  using S = Shape<kFp8, kDim>;
  static constexpr int kBytes = S::kRowBytes / 8;  // of this lane row's dimensions: 8, 16 or 32
  static constexpr int kWords = kBytes / 4;
  uint32_t w[4][kWords];

  // `valid`: tokens of the tile from which on nothing counts (stale bytes could be NaN).
  __device__ __forceinline__ void Load(const uint8_t* tile, int g, int c, int valid) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = 2 * c + (i & 1) + (i >> 1) * 8;
      const uint8_t* row = tile + token * S::kRowBytes;
      if constexpr (kBytes == 8) {
        const uint2 v =
            *reinterpret_cast<const uint2*>(row + SwizzleChunk(g >> 1, token, S::kChunks) * 16 + (g & 1) * 8);
        w[i][0] = v.x;
        w[i][1] = v.y;
      } else {
#pragma unroll
        for (int j = 0; j < kBytes / 16; ++j) {
          const uint4 v =
              *reinterpret_cast<const uint4*>(row + SwizzleChunk(g * (kBytes / 16) + j, token, S::kChunks) * 16);
          w[i][4 * j] = v.x;
          w[i][4 * j + 1] = v.y;
          w[i][4 * j + 2] = v.z;
          w[i][4 * j + 3] = v.w;
        }
      }
      if (token >= valid) {
#pragma unroll
        for (int j = 0; j < kWords; ++j) w[i][j] = 0;
      }
    }
  }
  // The A operand of product m.
  __device__ __forceinline__ void Operand(int m, uint32_t (&a)[4]) const {
    if constexpr (kFp8) {  // bytes 2m and 2m + 1 of each token
      const uint32_t pick = m & 1 ? 0x7362 : 0x5140;
      Fp8ToHalf(__byte_perm(w[0][m / 2], w[1][m / 2], pick), a[0], a[1]);
      Fp8ToHalf(__byte_perm(w[2][m / 2], w[3][m / 2], pick), a[2], a[3]);
    } else {
      a[0] = Bf16ToHalf(__byte_perm(w[0][m], w[1][m], 0x5410));
      a[1] = Bf16ToHalf(__byte_perm(w[0][m], w[1][m], 0x7632));
      a[2] = Bf16ToHalf(__byte_perm(w[2][m], w[3][m], 0x5410));
      a[3] = Bf16ToHalf(__byte_perm(w[2][m], w[3][m], 0x7632));
    }
  }
};
// Adds 16 tokens' values, weighted.
template <bool kFp8, int kDim>
__device__ __forceinline__ void ValueProduct(const uint8_t* tile, int g, int c, int valid, uint32_t b0, uint32_t b1,
                                             float (&sums)[kDim / 16][4]) {
  ValueTile<kFp8, kDim> values;
  values.Load(tile, g, c, valid);
#pragma unroll
  for (int m = 0; m < kDim / 16; ++m) {
    uint32_t a[4];
    values.Operand(m, a);
    Mma(sums[m], a, b0, b1);
  }
}

}  // namespace
}  // namespace baton::cuda

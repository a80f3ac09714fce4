// Products of BF16 weights and input rounded to BF16: vdpbf16ps adds two products for each (row, column) at once.
//
// Sums follow pairs of k in order, whatever the tile. An odd last k is multiplied by a zero beside it.
#include "backend/cpu/avx512.h"

namespace baton::cpu {
namespace {

constexpr int64_t kChunk = 2048;  // of k, whose input is rounded into the scratch: 8 × 2,048 × 2 bytes
static_assert(kAvx512Tile * kChunk * 2 <= kMultiplyScratch);

// x[0, count) → BF16, padded with zeros to a multiple of 32.
BATON_INLINE void Round(const float* x, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; i += 32) {
    __m512 parts[2];
    for (int half = 0; half < 2; ++half) {
      const int64_t left = count - i - half * 16;
      const __mmask16 mask = left >= 16 ? 0xffff : left <= 0 ? 0 : static_cast<__mmask16>((1u << left) - 1);
      parts[half] = _mm512_maskz_loadu_ps(mask, x + i + half * 16);
    }
    _mm512_store_si512(out + i * 2, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(parts[1], parts[0])));
  }
}

// Weights [2 k][16 rows] → [16 rows][2 k]. `one`: there is no second k.
BATON_INLINE __m512bh LoadPair(const uint8_t* weights, bool one) {
  alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                      8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i rows = _mm512_maskz_loadu_epi16(one ? 0x0000ffff : 0xffffffff, weights);
  return reinterpret_cast<__m512bh>(_mm512_permutexvar_epi16(_mm512_load_si512(kOrder), rows));
}

template <int kColumns>
void MultiplyTile(const MultiplyArgs& args, int first) {
  __m512 sums[kColumns];
  for (int c = 0; c < kColumns; ++c) sums[c] = _mm512_setzero_ps();
  for (int64_t begin = 0; begin < args.k; begin += kChunk) {
    const int64_t count = args.k - begin < kChunk ? args.k - begin : kChunk;
    for (int c = 0; c < kColumns; ++c) {
      Round(args.floats + (first + c) * args.float_stride + begin, count, args.scratch + c * kChunk * 2);
    }
    for (int64_t k = 0; k < count; k += 2) {
      const __m512bh rows = LoadPair(args.panel + (begin + k) * kPanelRows * 2, k + 1 == count);
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; ++c) {
        const __m512i input = avx512::Broadcast4(args.scratch + (c * kChunk + k) * 2);
        sums[c] = _mm512_dpbf16_ps(sums[c], rows, reinterpret_cast<__m512bh>(input));
      }
    }
  }
  for (int c = 0; c < kColumns; ++c) _mm512_storeu_ps(args.out + (first + c) * args.out_stride, sums[c]);
}

}  // namespace

void MultiplyBf16Avx512Bf16(const MultiplyArgs& args) {
  using Function = void (*)(const MultiplyArgs&, int);
  static constexpr Function kTiles[kAvx512Tile + 1] = {
      nullptr,         MultiplyTile<1>, MultiplyTile<2>, MultiplyTile<3>, MultiplyTile<4>,
      MultiplyTile<5>, MultiplyTile<6>, MultiplyTile<7>, MultiplyTile<8>,
  };
  for (int c = 0; c < args.columns; c += kAvx512Tile) {
    kTiles[args.columns - c < kAvx512Tile ? args.columns - c : kAvx512Tile](args, c);
  }
}

}  // namespace baton::cpu

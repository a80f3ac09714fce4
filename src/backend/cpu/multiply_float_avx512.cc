// Products with F32, F16 and BF16 weights: one fused multiply-add for each (row, column, k), k ascending, to AVX2's
// bits.
#include "backend/cpu/avx512.h"

namespace baton::cpu {
namespace {

template <PackedKind kKind>
BATON_INLINE __m512 LoadWeights(const uint8_t* panel, int64_t k) {
  if constexpr (kKind == PackedKind::kF32) return _mm512_loadu_ps(panel + k * kPanelRows * 4);
  const uint8_t* weights = panel + k * kPanelRows * 2;
  if constexpr (kKind == PackedKind::kF16) return avx512::LoadHalves(weights);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// 16 rows × kColumns columns.
template <PackedKind kKind, int kColumns>
void MultiplyTile(const MultiplyArgs& args, int first) {
  __m512 sums[kColumns];
  const float* x[kColumns];
  for (int c = 0; c < kColumns; ++c) {
    sums[c] = _mm512_setzero_ps();
    x[c] = args.floats + (first + c) * args.float_stride;
  }
  for (int64_t k = 0; k < args.k; ++k) {
    const __m512 rows = LoadWeights<kKind>(args.panel, k);
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; ++c) sums[c] = _mm512_fmadd_ps(rows, _mm512_set1_ps(x[c][k]), sums[c]);
  }
  for (int c = 0; c < kColumns; ++c) _mm512_storeu_ps(args.out + (first + c) * args.out_stride, sums[c]);
}

template <PackedKind kKind>
void Multiply(const MultiplyArgs& args) {
  using Function = void (*)(const MultiplyArgs&, int);
  static constexpr Function kTiles[kAvx512Tile + 1] = {
      nullptr,
      MultiplyTile<kKind, 1>,
      MultiplyTile<kKind, 2>,
      MultiplyTile<kKind, 3>,
      MultiplyTile<kKind, 4>,
      MultiplyTile<kKind, 5>,
      MultiplyTile<kKind, 6>,
      MultiplyTile<kKind, 7>,
      MultiplyTile<kKind, 8>,
  };
  for (int c = 0; c < args.columns; c += kAvx512Tile) {
    kTiles[args.columns - c < kAvx512Tile ? args.columns - c : kAvx512Tile](args, c);
  }
}

}  // namespace

void MultiplyF32Avx512(const MultiplyArgs& args) { Multiply<PackedKind::kF32>(args); }
void MultiplyF16Avx512(const MultiplyArgs& args) { Multiply<PackedKind::kF16>(args); }
void MultiplyBf16Avx512(const MultiplyArgs& args) { Multiply<PackedKind::kBF16>(args); }

}  // namespace baton::cpu

// Products with F32, F16 and BF16 weights: one fused multiply-add for each (row, column, k), k ascending.
#include "backend/cpu/avx2.h"

namespace baton::cpu {
namespace {

template <PackedKind kKind>
BATON_INLINE __m256 LoadWeights(const uint8_t* panel, int64_t k, int half) {
  const int64_t element = k * kPanelRows + half * 8;
  if constexpr (kKind == PackedKind::kF32) return _mm256_loadu_ps(reinterpret_cast<const float*>(panel) + element);
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(panel + element * 2));
  if constexpr (kKind == PackedKind::kF16) return _mm256_cvtph_ps(bits);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// 16 rows × kColumns columns.
template <PackedKind kKind, int kColumns>
void MultiplyTile(const MultiplyArgs& args, int first) {
  __m256 low[kColumns];
  __m256 high[kColumns];
  const float* x[kColumns];
  for (int c = 0; c < kColumns; ++c) {
    low[c] = high[c] = _mm256_setzero_ps();
    x[c] = args.floats + (first + c) * args.float_stride;
  }
  for (int64_t k = 0; k < args.k; ++k) {
    const __m256 rows_low = LoadWeights<kKind>(args.panel, k, 0);
    const __m256 rows_high = LoadWeights<kKind>(args.panel, k, 1);
#pragma GCC unroll 6
    for (int c = 0; c < kColumns; ++c) {
      const __m256 value = _mm256_broadcast_ss(x[c] + k);
      low[c] = _mm256_fmadd_ps(rows_low, value, low[c]);
      high[c] = _mm256_fmadd_ps(rows_high, value, high[c]);
    }
  }
  for (int c = 0; c < kColumns; ++c) {
    float* out = args.out + (first + c) * args.out_stride;
    _mm256_storeu_ps(out, low[c]);
    _mm256_storeu_ps(out + 8, high[c]);
  }
}

template <PackedKind kKind>
void Multiply(const MultiplyArgs& args) {
  int first = 0;
  for (; first + 6 <= args.columns; first += 6) MultiplyTile<kKind, 6>(args, first);
  switch (args.columns - first) {
    case 1:
      return MultiplyTile<kKind, 1>(args, first);
    case 2:
      return MultiplyTile<kKind, 2>(args, first);
    case 3:
      return MultiplyTile<kKind, 3>(args, first);
    case 4:
      return MultiplyTile<kKind, 4>(args, first);
    case 5:
      return MultiplyTile<kKind, 5>(args, first);
    default:
      return;
  }
}

}  // namespace

void MultiplyF32Avx2(const MultiplyArgs& args) { Multiply<PackedKind::kF32>(args); }
void MultiplyF16Avx2(const MultiplyArgs& args) { Multiply<PackedKind::kF16>(args); }
void MultiplyBf16Avx2(const MultiplyArgs& args) { Multiply<PackedKind::kBF16>(args); }

}  // namespace baton::cpu

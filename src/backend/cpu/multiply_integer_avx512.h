// Products of block-quantized weights for AVX-512 with VNNI: one template for every format, so that
// multiply_q4_avx512.cc and its neighbours only say which. vpdpbusd multiplies 16 rows × 4 columns by one broadcast and
// adds in int32, vpdpwssd 16 rows × 2 columns of 8-bit weights. Float sums follow the parts of k in order, as for AVX2,
// to the same bits.
#pragma once

#include "backend/cpu/avx512.h"
#include "backend/cpu/multiply_many.h"

namespace baton::cpu {
namespace {

using avx512::Broadcast4;
using avx512::LoadHalves;

// How to read one kind of panel (packed_format.h).
template <PackedKind kKind>
struct Format {
  static constexpr PackedTraits kTraits = TraitsOf(kKind);
  static constexpr bool kBytes = kTraits.bits == 8;
  static constexpr int kSteps = kBytes ? 16 : 8;  // of 64 bytes of unpacked weights
  static constexpr int kParts = kTraits.parts;
  static constexpr int kPartSteps = kSteps / kParts;
  static constexpr int kColumnBytes = ColumnBlockBytes(kTraits.input);
  static constexpr int kColumnValues = ColumnValueBytes(kTraits.input);
  static constexpr int kLines = (kTraits.block_bytes + 63) / 64;  // of the cache, to prefetch
  static constexpr int kAhead = kBytes ? 2048 : 1280;             // bytes
  static constexpr int kUnpackedScales = kSteps * 64;
  static constexpr int kUnpackedBytes = kUnpackedScales + kParts * 128;

  // Weights of 16 rows × 4 columns (uint8), or × 2 columns (int16).
  BATON_INLINE __m512i Rows(const uint8_t* block, int step) {
    const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + step * 32));
    if constexpr (kBytes) return _mm512_cvtepi8_epi16(packed);
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i shifts = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);  // rows 8-15
    const __m512i rows = _mm512_srlv_epi16(_mm512_broadcast_i64x4(packed), shifts);
    if constexpr (kTraits.bits == 4) return _mm512_and_si512(rows, nibble);
    constexpr int kBits = kTraits.bits - 4;
    constexpr int kTogether = kBits > 0 ? 8 / kBits : 1;  // steps whose high bits share a byte
    const __m512i high = _mm512_loadu_si512(block + 256 + step / kTogether * 64);
    const int shift = step % kTogether * kBits - 4;
    const __m512i moved =
        shift <= 0 ? _mm512_slli_epi16(high, static_cast<unsigned>(-shift)) : _mm512_srli_epi16(high, shift);
    const __m512i mask = _mm512_set1_epi8(kBits == 1 ? 16 : 48);
    return _mm512_or_si512(_mm512_and_si512(rows, nibble), _mm512_and_si512(moved, mask));
  }

  BATON_INLINE __m512 Scale(const uint8_t* header, const uint8_t* block, int part) {
    const uint8_t* scales = block + kTraits.weight_bytes;
    if constexpr (kTraits.header_bytes == 0) return LoadHalves(scales);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + part * 16));
    const __m512i factor = kKind == PackedKind::kQ6K ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
    return _mm512_mul_ps(LoadHalves(header), _mm512_cvtepi32_ps(factor));
  }

  BATON_INLINE __m512 Minimum(const uint8_t* header, const uint8_t* block, __m512 scale) {
    const uint8_t* minima = block + kTraits.weight_bytes;
    if constexpr (kKind == PackedKind::kQ4) return _mm512_mul_ps(scale, _mm512_set1_ps(-8.0f));
    if constexpr (kKind == PackedKind::kQ5) return _mm512_mul_ps(scale, _mm512_set1_ps(-16.0f));
    if constexpr (kKind == PackedKind::kQ6K) return _mm512_mul_ps(scale, _mm512_set1_ps(-32.0f));
    if constexpr (kTraits.header_bytes == 0) return LoadHalves(minima + 32);
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(minima + 16));
    return _mm512_mul_ps(LoadHalves(header + 32), _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
  }

  BATON_INLINE __m512i AddProducts(__m512i sum, __m512i rows, const uint8_t* input) {
    if constexpr (kBytes) return _mm512_dpwssd_epi32(sum, rows, Broadcast4(input));
    return _mm512_dpbusd_epi32(sum, rows, Broadcast4(input));
  }

  BATON_INLINE __m512 AddPart(__m512 sum, __m512i dot, __m512 scale, __m512 minimum, const float* input_scale,
                              const float* input_sum) {
    sum = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(*input_scale)), _mm512_cvtepi32_ps(dot), sum);
    if constexpr (kBytes) return sum;
    return _mm512_fmadd_ps(minimum, _mm512_set1_ps(*input_sum), sum);
  }
};

// 1 to 8 columns: unpacks on the fly and prefetches.
template <typename F, int kWidth>
__attribute__((noinline)) void MultiplyFew(const MultiplyArgs& args) {
  __m512 sums[kWidth];
  for (int c = 0; c < kWidth; ++c) sums[c] = _mm512_setzero_ps();
  const uint8_t* header = args.panel;
  const uint8_t* block = args.panel;
  const uint8_t* tile = args.tiles;
  for (int64_t b = 0; b < args.k / kQuantBlock;
       ++b, block += F::kTraits.block_bytes, tile += kWidth * F::kColumnBytes) {
    if constexpr (F::kTraits.header_bytes > 0) {
      if (b % kHeaderBlocks == 0) {
        header = block;
        block += F::kTraits.header_bytes;
      }
    }
    for (int i = 0; i < F::kLines; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(block) + F::kAhead + i * 64, _MM_HINT_T0);
    }
    const float* scales = reinterpret_cast<const float*>(tile + kWidth * F::kColumnValues);
#pragma GCC unroll 2
    for (int part = 0; part < F::kParts; ++part) {
      __m512i dots[kWidth];
      for (int c = 0; c < kWidth; ++c) dots[c] = _mm512_setzero_si512();
#pragma GCC unroll 16
      for (int i = 0; i < F::kPartSteps; ++i) {
        const int step = part * F::kPartSteps + i;
        const __m512i rows = F::Rows(block, step);
#pragma GCC unroll 8
        for (int c = 0; c < kWidth; ++c) dots[c] = F::AddProducts(dots[c], rows, tile + (step * kWidth + c) * 4);
      }
      const __m512 scale = F::Scale(header, block, part);
      const __m512 minimum = F::Minimum(header, block, scale);
#pragma GCC unroll 8
      for (int c = 0; c < kWidth; ++c) {
        sums[c] = F::AddPart(sums[c], dots[c], scale, minimum, scales + c, scales + (1 + part) * kWidth + c);
      }
    }
  }
  for (int c = 0; c < kWidth; ++c) _mm512_storeu_ps(args.out + c * args.out_stride, sums[c]);
}

// Blocks → [steps][64] bytes, then float scale[16] and minimum[16] of each part. Begins at a header.
template <typename F>
void Unpack(const uint8_t* block, int64_t blocks, uint8_t* out) {
  const uint8_t* header = block;
  for (int64_t b = 0; b < blocks; ++b, block += F::kTraits.block_bytes, out += F::kUnpackedBytes) {
    if constexpr (F::kTraits.header_bytes > 0) {
      if (b % kHeaderBlocks == 0) {
        header = block;
        block += F::kTraits.header_bytes;
      }
    }
#pragma GCC unroll 16
    for (int step = 0; step < F::kSteps; ++step) _mm512_store_si512(out + step * 64, F::Rows(block, step));
    float* scales = reinterpret_cast<float*>(out + F::kUnpackedScales);
    for (int part = 0; part < F::kParts; ++part, scales += 32) {
      const __m512 scale = F::Scale(header, block, part);
      _mm512_store_ps(scales, scale);
      _mm512_store_ps(scales + 16, F::Minimum(header, block, scale));
    }
  }
}

// 16 rows of an unpacked panel × up to 8 columns; continues the sums in `out` unless these are the first blocks.
template <typename F, int kWidth>
__attribute__((noinline)) void MultiplyUnpacked(const uint8_t* block, int64_t blocks, const uint8_t* tile, float* out,
                                                int64_t stride, bool first) {
  __m512 sums[kWidth];
  for (int c = 0; c < kWidth; ++c) sums[c] = first ? _mm512_setzero_ps() : _mm512_loadu_ps(out + c * stride);
  for (int64_t b = 0; b < blocks; ++b, block += F::kUnpackedBytes, tile += kWidth * F::kColumnBytes) {
    const float* weights = reinterpret_cast<const float*>(block + F::kUnpackedScales);
    const float* scales = reinterpret_cast<const float*>(tile + kWidth * F::kColumnValues);
#pragma GCC unroll 2
    for (int part = 0; part < F::kParts; ++part, weights += 32) {
      __m512i dots[kWidth];
      for (int c = 0; c < kWidth; ++c) dots[c] = _mm512_setzero_si512();
#pragma GCC unroll 16
      for (int i = 0; i < F::kPartSteps; ++i) {
        const int step = part * F::kPartSteps + i;
        const __m512i rows = _mm512_load_si512(block + step * 64);
#pragma GCC unroll 8
        for (int c = 0; c < kWidth; ++c) dots[c] = F::AddProducts(dots[c], rows, tile + (step * kWidth + c) * 4);
      }
      const __m512 scale = _mm512_load_ps(weights);
      const __m512 minimum = _mm512_load_ps(weights + 16);
#pragma GCC unroll 8
      for (int c = 0; c < kWidth; ++c) {
        sums[c] = F::AddPart(sums[c], dots[c], scale, minimum, scales + c, scales + (1 + part) * kWidth + c);
      }
    }
  }
  for (int c = 0; c < kWidth; ++c) _mm512_storeu_ps(out + c * stride, sums[c]);
}

template <typename F>
UnpackedProduct Unpacked() {
  static constexpr UnpackedProduct::MultiplyTile kTiles[kAvx512Tile + 1] = {
      nullptr,
      MultiplyUnpacked<F, 1>,
      MultiplyUnpacked<F, 2>,
      MultiplyUnpacked<F, 3>,
      MultiplyUnpacked<F, 4>,
      MultiplyUnpacked<F, 5>,
      MultiplyUnpacked<F, 6>,
      MultiplyUnpacked<F, 7>,
      MultiplyUnpacked<F, 8>,
  };
  constexpr int kPanelBlocks = F::kBytes ? 16 : 24;  // 15 to 18 KB
  static_assert(kPanelBlocks * F::kUnpackedBytes <= kMultiplyScratch && kPanelBlocks % kHeaderBlocks == 0);
  return {F::kTraits, kPanelBlocks, kAvx512Tile, Unpack<F>, kTiles};
}

// Adds what the outliers of int8 input give, after all blocks.
template <typename F>
__attribute__((noinline)) void AddOutliers(const MultiplyArgs& args) {
  constexpr PackedTraits kTraits = F::kTraits;
  const Outlier* outlier = args.outliers;
  for (int c = 0; c < args.columns; ++c) {
    float* out = args.out + c * args.out_stride;
    __m512 sum = _mm512_loadu_ps(out);
    for (int i = 0; i < args.outliers_each; ++i, ++outlier) {
      const int b = outlier->column / kQuantBlock;
      const int step = outlier->column % kQuantBlock / 4;
      const uint8_t* block = args.panel + BlockOffset(kTraits, b);
      const uint8_t* header =
          args.panel + BlockOffset(kTraits, b / kHeaderBlocks * kHeaderBlocks) - kTraits.header_bytes;
      const __m128i shift = _mm_cvtsi32_si128(outlier->column % 4 * 8);
      const __m512i q = _mm512_and_si512(_mm512_srl_epi32(F::Rows(block, step), shift), _mm512_set1_epi32(255));
      const __m512 scale = F::Scale(header, block, step / F::kPartSteps);
      const __m512 weight = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(q), F::Minimum(header, block, scale));
      sum = _mm512_fmadd_ps(weight, _mm512_set1_ps(outlier->value), sum);
    }
    _mm512_storeu_ps(out, sum);
  }
}

template <PackedKind kKind>
void MultiplyIntegers(const MultiplyArgs& args) {
  using F = Format<kKind>;
  using Function = void (*)(const MultiplyArgs&);
  static constexpr Function kFew[9] = {
      nullptr,           MultiplyFew<F, 1>, MultiplyFew<F, 2>, MultiplyFew<F, 3>, MultiplyFew<F, 4>,
      MultiplyFew<F, 5>, MultiplyFew<F, 6>, MultiplyFew<F, 7>, MultiplyFew<F, 8>,
  };
  args.columns <= kMaxTileWidth ? kFew[args.columns](args) : MultiplyMany(Unpacked<F>(), args);
  if constexpr (!F::kBytes) AddOutliers<F>(args);
}

}  // namespace
}  // namespace baton::cpu

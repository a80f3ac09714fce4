// Products of 4- to 6-bit weights with int8 input, for AVX2: one template for every format, so that multiply_q4_avx2.cc
// and its neighbours only say which.
//
// vpmaddubsw multiplies unsigned weights by signed input and adds two products in int16. As many of those as fit 16
// bits are added before one vpmaddwd widens them: 15 · 127 · 16, 31 · 127 · 8, 63 · 127 · 4. So there is no horizontal
// sum, and three instructions make 64 multiply-adds. Float sums follow the parts of k in order, one fused multiply-add
// for the scale and one for the minimum, in every variant below.
#pragma once

#include "backend/cpu/avx2.h"
#include "backend/cpu/multiply_many.h"

namespace baton::cpu {
namespace {

using avx2::LoadHalves;

constexpr int kSteps = 8;  // of four columns in a block

BATON_INLINE __m256i Broadcast4(const uint8_t* data) {
  return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(data)));
}
BATON_INLINE __m256i LoadBytes(const uint8_t* data) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(data));
}

// How to read one kind of panel (packed_format.h).
template <PackedKind kKind>
struct Format {
  static constexpr PackedTraits kTraits = TraitsOf(kKind);
  static constexpr int kParts = kTraits.parts;
  static constexpr int kPartSteps = kSteps / kParts;
  static constexpr int kWiden = kTraits.bits == 4 ? 8 : kTraits.bits == 5 ? 4 : 2;  // steps that int16 can hold
  static constexpr int kColumnBytes = ColumnBlockBytes(kTraits.input);
  static constexpr int kLines = (kTraits.block_bytes + 63) / 64;  // of the cache, to prefetch
  static constexpr int kUnpackedScales = kSteps * 64;
  static constexpr int kUnpackedBytes = kUnpackedScales + kParts * 128;

  // Unsigned weights of 8 rows × 4 columns.
  BATON_INLINE __m256i Rows(const uint8_t* block, int step, int half) {
    __m256i rows = LoadBytes(block + step * 32);
    if (half == 1) rows = _mm256_srli_epi16(rows, 4);
    rows = _mm256_and_si256(rows, _mm256_set1_epi8(15));
    if constexpr (kTraits.bits == 5) {
      __m256i high = LoadBytes(block + 256 + half * 32);
      high = step <= 4 ? _mm256_slli_epi16(high, 4 - step) : _mm256_srli_epi16(high, step - 4);
      rows = _mm256_or_si256(rows, _mm256_and_si256(high, _mm256_set1_epi8(16)));
    } else if constexpr (kTraits.bits == 6) {
      __m256i high = LoadBytes(block + 256 + (step / 4 * 2 + half) * 32);
      const int shift = step % 4 * 2;
      high = shift <= 4 ? _mm256_slli_epi16(high, 4 - shift) : _mm256_srli_epi16(high, shift - 4);
      rows = _mm256_or_si256(rows, _mm256_and_si256(high, _mm256_set1_epi8(48)));
    }
    return rows;
  }

  // Those of 8 rows × the column that is `shift` bits into each row's four, as int32.
  BATON_INLINE __m256i RowsOfColumn(const uint8_t* block, int step, int shift, int half) {
    if constexpr (kTraits.bits == 4) {  // one shift and one mask do it
      const __m256i rows = _mm256_srl_epi32(LoadBytes(block + step * 32), _mm_cvtsi32_si128(shift + 4 * half));
      return _mm256_and_si256(rows, _mm256_set1_epi32(15));
    }
    const __m256i rows = _mm256_srl_epi32(Rows(block, step, half), _mm_cvtsi32_si128(shift));
    return _mm256_and_si256(rows, _mm256_set1_epi32(255));
  }

  BATON_INLINE __m256 Scale(const uint8_t* header, const uint8_t* block, int part, int half) {
    const uint8_t* scales = block + kTraits.weight_bytes;
    if constexpr (kTraits.header_bytes == 0) return LoadHalves(scales + half * 16);
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales + part * 16 + half * 8));
    const __m256i factor = kKind == PackedKind::kQ6K ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
    return _mm256_mul_ps(LoadHalves(header + half * 16), _mm256_cvtepi32_ps(factor));
  }

  BATON_INLINE __m256 Minimum(const uint8_t* header, const uint8_t* block, __m256 scale, int half) {
    const uint8_t* minima = block + kTraits.weight_bytes;
    if constexpr (kKind == PackedKind::kQ4) return _mm256_mul_ps(scale, _mm256_set1_ps(-8.0f));
    if constexpr (kKind == PackedKind::kQ5) return _mm256_mul_ps(scale, _mm256_set1_ps(-16.0f));
    if constexpr (kKind == PackedKind::kQ6K) return _mm256_mul_ps(scale, _mm256_set1_ps(-32.0f));
    if constexpr (kTraits.header_bytes == 0) return LoadHalves(minima + 32 + half * 16);
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(minima + 16 + half * 8));
    return _mm256_mul_ps(LoadHalves(header + 32 + half * 16), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
  }
};

// The pointer to a panel's block, as it walks over the headers.
template <typename F>
struct BlockCursor {
  const uint8_t* header;
  const uint8_t* block;

  BATON_INLINE void Enter(BlockCursor& cursor, int64_t index) {
    if constexpr (F::kTraits.header_bytes == 0) return;
    if (index % kHeaderBlocks != 0) return;
    cursor.header = cursor.block;
    cursor.block += F::kTraits.header_bytes;
  }
};

BATON_INLINE __m256i WidenPairs(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

BATON_INLINE __m256 AddPart(__m256 sum, __m256i dot, __m256 scale, __m256 minimum, const float* input_scale,
                            const float* input_sum) {
  sum = _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_broadcast_ss(input_scale)), _mm256_cvtepi32_ps(dot), sum);
  return _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(input_sum), sum);
}

// One column, bound by memory: unpacks on the fly and prefetches.
template <typename F>
void MultiplyOne(const MultiplyArgs& args) {
  BlockCursor<F> cursor = {args.panel, args.panel};
  const uint8_t* tile = args.tiles;
  __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
  for (int64_t b = 0; b < args.k / kQuantBlock; ++b, cursor.block += F::kTraits.block_bytes, tile += F::kColumnBytes) {
    BlockCursor<F>::Enter(cursor, b);
    const uint8_t* block = cursor.block;
    for (int i = 0; i < F::kLines; ++i) _mm_prefetch(reinterpret_cast<const char*>(block) + 1024 + i * 64, _MM_HINT_T0);
    const float* scales = reinterpret_cast<const float*>(tile + 32);
#pragma GCC unroll 2
    for (int part = 0; part < F::kParts; ++part) {
      __m256i dots[2];
#pragma GCC unroll 4
      for (int first = 0; first < F::kPartSteps; first += F::kWiden) {
        __m256i pairs[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 8
        for (int i = 0; i < F::kWiden; ++i) {
          const int step = part * F::kPartSteps + first + i;
          const __m256i input = Broadcast4(tile + step * 4);
          for (int half = 0; half < 2; ++half) {
            pairs[half] = _mm256_add_epi16(pairs[half], _mm256_maddubs_epi16(F::Rows(block, step, half), input));
          }
        }
        for (int half = 0; half < 2; ++half) {
          const __m256i widened = WidenPairs(pairs[half]);
          dots[half] = first == 0 ? widened : _mm256_add_epi32(dots[half], widened);
        }
      }
      for (int half = 0; half < 2; ++half) {
        const __m256 scale = F::Scale(cursor.header, block, part, half);
        const __m256 minimum = F::Minimum(cursor.header, block, scale, half);
        sums[half] = AddPart(sums[half], dots[half], scale, minimum, scales, scales + 1 + part);
      }
    }
  }
  _mm256_storeu_ps(args.out, sums[0]);
  _mm256_storeu_ps(args.out + 8, sums[1]);
}

// 2 to 8 columns: the low nibbles' 8 rows, then the high ones', nothing unpacked to memory. Float sums live in L1.
template <typename F, int kWidth>
__attribute__((noinline)) void MultiplyFew(const MultiplyArgs& args) {
  alignas(32) float buffer[2 * kWidth * 8];
  float* sums = buffer;
  asm volatile("" : "+r"(sums)::"memory");  // an address, not registers
  for (int i = 0; i < 2 * kWidth; ++i) _mm256_store_ps(sums + i * 8, _mm256_setzero_ps());
  BlockCursor<F> cursor = {args.panel, args.panel};
  const uint8_t* tile = args.tiles;
  for (int64_t b = 0; b < args.k / kQuantBlock;
       ++b, cursor.block += F::kTraits.block_bytes, tile += kWidth * F::kColumnBytes) {
    BlockCursor<F>::Enter(cursor, b);
    const uint8_t* block = cursor.block;
    const float* scales = reinterpret_cast<const float*>(tile + kWidth * 32);
    for (int i = 0; i < F::kLines; ++i) _mm_prefetch(reinterpret_cast<const char*>(block) + 1280 + i * 64, _MM_HINT_T0);
#pragma GCC unroll 4
    for (int half_part = 0; half_part < 2 * F::kParts; ++half_part) {
      const int half = half_part % 2;
      const int part = half_part / 2;
      __m256i dots[kWidth];
#pragma GCC unroll 4
      for (int first = 0; first < F::kPartSteps; first += F::kWiden) {
        __m256i pairs[kWidth];
#pragma GCC unroll 8
        for (int i = 0; i < F::kWiden; ++i) {
          const int step = part * F::kPartSteps + first + i;
          const __m256i rows = F::Rows(block, step, half);
#pragma GCC unroll 8
          for (int c = 0; c < kWidth; ++c) {
            const __m256i product = _mm256_maddubs_epi16(rows, Broadcast4(tile + (step * kWidth + c) * 4));
            pairs[c] = i == 0 ? product : _mm256_add_epi16(pairs[c], product);
            BATON_PIN(pairs[c]);
          }
        }
#pragma GCC unroll 8
        for (int c = 0; c < kWidth; ++c) {
          const __m256i widened = WidenPairs(pairs[c]);
          dots[c] = first == 0 ? widened : _mm256_add_epi32(dots[c], widened);
        }
      }
      const __m256 scale = F::Scale(cursor.header, block, part, half);
      const __m256 minimum = F::Minimum(cursor.header, block, scale, half);
      float* half_sums = sums + half * 8;
#pragma GCC unroll 8
      for (int c = 0; c < kWidth; ++c) {
        const __m256 sum = _mm256_load_ps(half_sums + c * 16);
        _mm256_store_ps(half_sums + c * 16,
                        AddPart(sum, dots[c], scale, minimum, scales + c, scales + (1 + part) * kWidth + c));
      }
    }
  }
  for (int c = 0; c < kWidth; ++c) {
    _mm256_storeu_ps(args.out + c * args.out_stride, _mm256_load_ps(sums + c * 16));
    _mm256_storeu_ps(args.out + c * args.out_stride + 8, _mm256_load_ps(sums + c * 16 + 8));
  }
}

// Blocks → bytes [8 steps][16 rows][4], then float scale[16] and minimum[16] of each part. Begins at a header.
template <typename F>
void Unpack(const uint8_t* first, int64_t blocks, uint8_t* out) {
  BlockCursor<F> cursor = {first, first};
  for (int64_t b = 0; b < blocks; ++b, cursor.block += F::kTraits.block_bytes, out += F::kUnpackedBytes) {
    BlockCursor<F>::Enter(cursor, b);
#pragma GCC unroll 8
    for (int step = 0; step < kSteps; ++step) {
      for (int half = 0; half < 2; ++half) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + step * 64 + half * 32), F::Rows(cursor.block, step, half));
      }
    }
    float* scales = reinterpret_cast<float*>(out + F::kUnpackedScales);
    for (int part = 0; part < F::kParts; ++part, scales += 32) {
      for (int half = 0; half < 2; ++half) {
        const __m256 scale = F::Scale(cursor.header, cursor.block, part, half);
        _mm256_store_ps(scales + half * 8, scale);
        _mm256_store_ps(scales + 16 + half * 8, F::Minimum(cursor.header, cursor.block, scale, half));
      }
    }
  }
}

// One part of a block, rows [8 × kFirst, 8 × (kFirst + kHalves)) × kWidth columns.
template <typename F, int kWidth, int kFirst, int kHalves>
BATON_INLINE void AddUnpackedPart(const uint8_t* block, const uint8_t* tile, int part, float* sums) {
  constexpr int kSums = kWidth * kHalves;  // [column][half]
  __m256i dots[kSums];
#pragma GCC unroll 4
  for (int first = 0; first < F::kPartSteps; first += F::kWiden) {
    __m256i pairs[kSums];
#pragma GCC unroll 8
    for (int i = 0; i < F::kWiden; ++i) {
      const int step = part * F::kPartSteps + first + i;
      __m256i rows[kHalves];
      for (int half = 0; half < kHalves; ++half) {
        rows[half] = _mm256_load_si256(reinterpret_cast<const __m256i*>(block + step * 64 + (kFirst + half) * 32));
      }
#pragma GCC unroll 4
      for (int c = 0; c < kWidth; ++c) {
        const __m256i input = Broadcast4(tile + (step * kWidth + c) * 4);
#pragma GCC unroll 2
        for (int half = 0; half < kHalves; ++half) {
          __m256i& sum = pairs[c * kHalves + half];
          const __m256i product = _mm256_maddubs_epi16(rows[half], input);
          sum = i == 0 ? product : _mm256_add_epi16(sum, product);
          BATON_PIN(sum);
        }
      }
    }
#pragma GCC unroll 8
    for (int c = 0; c < kSums; ++c) {
      const __m256i widened = WidenPairs(pairs[c]);
      dots[c] = first == 0 ? widened : _mm256_add_epi32(dots[c], widened);
    }
  }
  const float* weights = reinterpret_cast<const float*>(block + F::kUnpackedScales) + part * 32;
  const float* scales = reinterpret_cast<const float*>(tile + kWidth * 32);
#pragma GCC unroll 8
  for (int i = 0; i < kSums; ++i) {
    const int half = kFirst + i % kHalves;
    const int c = i / kHalves;
    float* sum = sums + (c * 2 + half) * 8;
    _mm256_store_ps(sum,
                    AddPart(_mm256_load_ps(sum), dots[i], _mm256_load_ps(weights + half * 8),
                            _mm256_load_ps(weights + 16 + half * 8), scales + c, scales + (1 + part) * kWidth + c));
  }
}

// 16 rows of an unpacked panel × up to 4 columns; continues the sums in `out` unless these are the first blocks.
template <typename F, int kWidth>
__attribute__((noinline)) void MultiplyUnpacked(const uint8_t* block, int64_t blocks, const uint8_t* tile, float* out,
                                                int64_t stride, bool first) {
  alignas(32) float buffer[2 * kWidth * 8];
  float* sums = buffer;
  asm volatile("" : "+r"(sums)::"memory");
  for (int c = 0; c < kWidth; ++c) {
    for (int half = 0; half < 2; ++half) {
      const __m256 sum = first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + c * stride + half * 8);
      _mm256_store_ps(sums + (c * 2 + half) * 8, sum);
    }
  }
  for (int64_t b = 0; b < blocks; ++b, block += F::kUnpackedBytes, tile += kWidth * F::kColumnBytes) {
#pragma GCC unroll 2
    for (int part = 0; part < F::kParts; ++part) {
      if constexpr (F::kWiden == F::kPartSteps) {
        AddUnpackedPart<F, kWidth, 0, 2>(block, tile, part, sums);
      } else {  // sums of both sizes: fewer rows at a time fit the registers
        AddUnpackedPart<F, kWidth, 0, 1>(block, tile, part, sums);
        AddUnpackedPart<F, kWidth, 1, 1>(block, tile, part, sums);
      }
    }
  }
  for (int c = 0; c < kWidth; ++c) {
    for (int half = 0; half < 2; ++half) {
      _mm256_storeu_ps(out + c * stride + half * 8, _mm256_load_ps(sums + (c * 2 + half) * 8));
    }
  }
}

template <typename F>
UnpackedProduct Unpacked() {
  static constexpr UnpackedProduct::MultiplyTile kTiles[kAvx2NibbleTile + 1] = {
      nullptr, MultiplyUnpacked<F, 1>, MultiplyUnpacked<F, 2>, MultiplyUnpacked<F, 3>, MultiplyUnpacked<F, 4>};
  constexpr int kPanelBlocks = 24;  // 15 to 18 KB
  static_assert(kPanelBlocks * F::kUnpackedBytes <= kMultiplyScratch && kPanelBlocks % kHeaderBlocks == 0);
  return {F::kTraits, kPanelBlocks, kAvx2NibbleTile, Unpack<F>, kTiles};
}

// Adds what the outliers give, after all blocks.
template <typename F>
__attribute__((noinline)) void AddOutliers(const MultiplyArgs& args) {
  constexpr PackedTraits kTraits = F::kTraits;
  const Outlier* outlier = args.outliers;
  for (int c = 0; c < args.columns; ++c) {
    float* out = args.out + c * args.out_stride;
    __m256 sums[2] = {_mm256_loadu_ps(out), _mm256_loadu_ps(out + 8)};
    for (int i = 0; i < args.outliers_each; ++i, ++outlier) {
      const int b = outlier->column / kQuantBlock;
      const int step = outlier->column % kQuantBlock / 4;
      const uint8_t* block = args.panel + BlockOffset(kTraits, b);
      const uint8_t* header =
          args.panel + BlockOffset(kTraits, b / kHeaderBlocks * kHeaderBlocks) - kTraits.header_bytes;
      const int shift = outlier->column % 4 * 8;
      const __m256 value = _mm256_broadcast_ss(&outlier->value);
      for (int half = 0; half < 2; ++half) {
        const __m256i q = F::RowsOfColumn(block, step, shift, half);
        const __m256 scale = F::Scale(header, block, step / F::kPartSteps, half);
        const __m256 weight = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(q), F::Minimum(header, block, scale, half));
        sums[half] = _mm256_fmadd_ps(weight, value, sums[half]);
      }
    }
    _mm256_storeu_ps(out, sums[0]);
    _mm256_storeu_ps(out + 8, sums[1]);
  }
}

template <PackedKind kKind>
void MultiplyNibbles(const MultiplyArgs& args) {
  using F = Format<kKind>;
  using Function = void (*)(const MultiplyArgs&);
  static constexpr Function kFew[9] = {
      nullptr,           MultiplyOne<F>,    MultiplyFew<F, 2>, MultiplyFew<F, 3>, MultiplyFew<F, 4>,
      MultiplyFew<F, 5>, MultiplyFew<F, 6>, MultiplyFew<F, 7>, MultiplyFew<F, 8>,
  };
  args.columns <= kMaxTileWidth ? kFew[args.columns](args) : MultiplyMany(Unpacked<F>(), args);
  AddOutliers<F>(args);
}

}  // namespace
}  // namespace baton::cpu

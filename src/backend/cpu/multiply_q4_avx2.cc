// Products of 4-bit weights with int8 input.
//
// 15 · 127 · 16 = 30,480 fits 16 bits, so the eight vpmaddubsw of a 32-block are added as int16 before one vpmaddwd
// widens them: no horizontal sum, 64 multiply-adds for each three instructions. Float sums follow the blocks of k in
// order, one fused multiply-add for the scale and one for the minimum, in every variant below.
#include "backend/cpu/avx2.h"

namespace baton::cpu {
namespace {

using avx2::LoadHalves;

template <bool kMinimum>
constexpr int kBlockBytes = kMinimum ? 320 : 288;
constexpr int kUnpackedBytes = 8 * 64 + 4 * 32;  // of a block: bytes [8][16 rows][4], float scale[16], minimum[16]
constexpr int kPanelBlocks = 24;                 // unpacked at once: 15 KB
static_assert(kPanelBlocks * kUnpackedBytes <= kMultiplyScratch);

BATON_INLINE __m256i Broadcast4(const uint8_t* data) {
  return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(data)));
}

template <bool kMinimum>
BATON_INLINE __m256 LoadMinimum(const uint8_t* block, __m256 scale, int half) {
  if constexpr (kMinimum) return LoadHalves(block + 288 + half * 16);
  return _mm256_mul_ps(scale, _mm256_set1_ps(-8.0f));
}

BATON_INLINE __m256 AddBlock(__m256 sum, __m256i pairs, __m256 scale, __m256 minimum, const float* input_scale,
                             const float* input_sum) {
  const __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  sum = _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_broadcast_ss(input_scale)), dot, sum);
  return _mm256_fmadd_ps(minimum, _mm256_broadcast_ss(input_sum), sum);
}

// One column, bound by memory: unpacks on the fly and prefetches.
template <bool kMinimum>
void MultiplyOne(const MultiplyArgs& args) {
  const __m256i mask = _mm256_set1_epi8(15);
  const uint8_t* block = args.panel;
  const uint8_t* tile = args.tiles;
  __m256 low = _mm256_setzero_ps();
  __m256 high = _mm256_setzero_ps();
  for (int64_t b = 0; b < args.k / kQuantBlock; ++b, block += kBlockBytes<kMinimum>, tile += 40) {
    for (int i = 0; i < 5; ++i) _mm_prefetch(reinterpret_cast<const char*>(block) + 1024 + i * 64, _MM_HINT_T0);
    __m256i pairs_low = _mm256_setzero_si256();
    __m256i pairs_high = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + i * 32));
      const __m256i input = Broadcast4(tile + i * 4);
      const __m256i rows_high = _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask);
      pairs_low = _mm256_add_epi16(pairs_low, _mm256_maddubs_epi16(_mm256_and_si256(packed, mask), input));
      pairs_high = _mm256_add_epi16(pairs_high, _mm256_maddubs_epi16(rows_high, input));
    }
    const float* scales = reinterpret_cast<const float*>(tile + 32);
    const __m256 scale_low = LoadHalves(block + 256);
    const __m256 scale_high = LoadHalves(block + 272);
    low = AddBlock(low, pairs_low, scale_low, LoadMinimum<kMinimum>(block, scale_low, 0), scales, scales + 1);
    high = AddBlock(high, pairs_high, scale_high, LoadMinimum<kMinimum>(block, scale_high, 1), scales, scales + 1);
  }
  _mm256_storeu_ps(args.out, low);
  _mm256_storeu_ps(args.out + 8, high);
}

// 2 to 8 columns: the low nibbles' 8 rows, then the high ones', nothing unpacked to memory. Float sums live in L1.
template <bool kMinimum, int kWidth>
__attribute__((noinline)) void MultiplyFew(const MultiplyArgs& args) {
  alignas(32) float buffer[2 * kWidth * 8];
  float* sums = buffer;
  asm volatile("" : "+r"(sums)::"memory");  // an address, not registers
  for (int i = 0; i < 2 * kWidth; ++i) _mm256_store_ps(sums + i * 8, _mm256_setzero_ps());
  const __m256i mask = _mm256_set1_epi8(15);
  const uint8_t* block = args.panel;
  const uint8_t* tile = args.tiles;
  for (int64_t b = 0; b < args.k / kQuantBlock; ++b, block += kBlockBytes<kMinimum>, tile += kWidth * 40) {
    const float* scales = reinterpret_cast<const float*>(tile + kWidth * 32);
    for (int i = 0; i < 5; ++i) _mm_prefetch(reinterpret_cast<const char*>(block) + 1280 + i * 64, _MM_HINT_T0);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m256i pairs[kWidth];
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) {
        __m256i rows = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + i * 32));
        if (half == 1) rows = _mm256_srli_epi16(rows, 4);
        rows = _mm256_and_si256(rows, mask);
#pragma GCC unroll 8
        for (int c = 0; c < kWidth; ++c) {
          const __m256i product = _mm256_maddubs_epi16(rows, Broadcast4(tile + (i * kWidth + c) * 4));
          pairs[c] = i == 0 ? product : _mm256_add_epi16(pairs[c], product);
          BATON_PIN(pairs[c]);
        }
      }
      const __m256 scale = LoadHalves(block + 256 + half * 16);
      const __m256 minimum = LoadMinimum<kMinimum>(block, scale, half);
      float* half_sums = sums + half * 8;
#pragma GCC unroll 8
      for (int c = 0; c < kWidth; ++c) {
        const __m256 sum = _mm256_load_ps(half_sums + c * 16);
        _mm256_store_ps(half_sums + c * 16, AddBlock(sum, pairs[c], scale, minimum, scales + c, scales + kWidth + c));
      }
    }
  }
  for (int c = 0; c < kWidth; ++c) {
    _mm256_storeu_ps(args.out + c * args.out_stride, _mm256_load_ps(sums + c * 16));
    _mm256_storeu_ps(args.out + c * args.out_stride + 8, _mm256_load_ps(sums + c * 16 + 8));
  }
}

template <bool kMinimum>
void Unpack(const uint8_t* block, int64_t blocks, uint8_t* out) {
  const __m256i mask = _mm256_set1_epi8(15);
  for (int64_t b = 0; b < blocks; ++b, block += kBlockBytes<kMinimum>, out += kUnpackedBytes) {
    for (int i = 0; i < 8; ++i) {
      const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + i * 32));
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + i * 64), _mm256_and_si256(packed, mask));
      _mm256_store_si256(reinterpret_cast<__m256i*>(out + i * 64 + 32),
                         _mm256_and_si256(_mm256_srli_epi16(packed, 4), mask));
    }
    float* scales = reinterpret_cast<float*>(out + 512);
    for (int half = 0; half < 2; ++half) {
      const __m256 scale = LoadHalves(block + 256 + half * 16);
      _mm256_store_ps(scales + half * 8, scale);
      _mm256_store_ps(scales + 16 + half * 8, LoadMinimum<kMinimum>(block, scale, half));
    }
  }
}

// 16 rows of an unpacked panel × up to 4 columns; continues the sums in `out` unless these are the first blocks.
template <int kWidth>
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
  for (int64_t b = 0; b < blocks; ++b, block += kUnpackedBytes, tile += kWidth * 40) {
    __m256i pairs[2 * kWidth];
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(block + i * 64));
      const __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(block + i * 64 + 32));
#pragma GCC unroll 4
      for (int c = 0; c < kWidth; ++c) {
        const __m256i input = Broadcast4(tile + (i * kWidth + c) * 4);
        const __m256i product_low = _mm256_maddubs_epi16(low, input);
        const __m256i product_high = _mm256_maddubs_epi16(high, input);
        pairs[c * 2] = i == 0 ? product_low : _mm256_add_epi16(pairs[c * 2], product_low);
        BATON_PIN(pairs[c * 2]);
        pairs[c * 2 + 1] = i == 0 ? product_high : _mm256_add_epi16(pairs[c * 2 + 1], product_high);
        BATON_PIN(pairs[c * 2 + 1]);
      }
    }
    const float* weights = reinterpret_cast<const float*>(block + 512);
    const float* scales = reinterpret_cast<const float*>(tile + kWidth * 32);
#pragma GCC unroll 8
    for (int i = 0; i < 2 * kWidth; ++i) {
      const int half = i % 2;
      const __m256 sum = AddBlock(_mm256_load_ps(sums + i * 8), pairs[i], _mm256_load_ps(weights + half * 8),
                                  _mm256_load_ps(weights + 16 + half * 8), scales + i / 2, scales + kWidth + i / 2);
      _mm256_store_ps(sums + i * 8, sum);
    }
  }
  for (int c = 0; c < kWidth; ++c) {
    for (int half = 0; half < 2; ++half) {
      _mm256_storeu_ps(out + c * stride + half * 8, _mm256_load_ps(sums + (c * 2 + half) * 8));
    }
  }
}

using UnpackedFunction = void (*)(const uint8_t*, int64_t, const uint8_t*, float*, int64_t, bool);
constexpr UnpackedFunction kUnpacked[5] = {nullptr, MultiplyUnpacked<1>, MultiplyUnpacked<2>, MultiplyUnpacked<3>,
                                           MultiplyUnpacked<4>};

template <bool kMinimum>
void MultiplyMany(const MultiplyArgs& args) {
  const int64_t blocks = args.k / kQuantBlock;
  for (int64_t b = 0; b < blocks; b += kPanelBlocks) {
    const int64_t count = blocks - b < kPanelBlocks ? blocks - b : kPanelBlocks;
    Unpack<kMinimum>(args.panel + b * kBlockBytes<kMinimum>, count, args.scratch);
    int width;
    for (int c = 0; c < args.columns; c += width) {
      width = TileWidth(InputKind::kInt8, args.columns, c);
      kUnpacked[width](args.scratch, count, args.tiles + (c * blocks + b * width) * 40, args.out + c * args.out_stride,
                       args.out_stride, b == 0);
    }
  }
}

template <bool kMinimum>
void Multiply(const MultiplyArgs& args) {
  using Function = void (*)(const MultiplyArgs&);
  constexpr Function kFew[9] = {
      nullptr,
      MultiplyOne<kMinimum>,
      MultiplyFew<kMinimum, 2>,
      MultiplyFew<kMinimum, 3>,
      MultiplyFew<kMinimum, 4>,
      MultiplyFew<kMinimum, 5>,
      MultiplyFew<kMinimum, 6>,
      MultiplyFew<kMinimum, 7>,
      MultiplyFew<kMinimum, 8>,
  };
  if (args.columns <= 8) return kFew[args.columns](args);
  MultiplyMany<kMinimum>(args);
}

}  // namespace

void MultiplyQ4Avx2(const MultiplyArgs& args) { Multiply<false>(args); }
void MultiplyQ4MinAvx2(const MultiplyArgs& args) { Multiply<true>(args); }

}  // namespace baton::cpu

// Products of 8-bit weights with int16 input: vpmaddwd is exact, and 32 products fit 32 bits. Float sums follow the
// blocks of k in order in every variant below.
#include "backend/cpu/avx2.h"
#include "backend/cpu/multiply_many.h"

namespace baton::cpu {
namespace {

using avx2::LoadHalves;

constexpr int kBlockBytes = TraitsOf(PackedKind::kQ8).block_bytes;
constexpr int kUnpackedBytes = 1024 + 2 * 32;  // of a block: int16 [16][16 rows][2], float scale[16]
constexpr int kPanelBlocks = 18;               // unpacked at once: 20 KB
static_assert(kPanelBlocks * kUnpackedBytes <= kMultiplyScratch);
constexpr int kColumnBytes = ColumnBlockBytes(InputKind::kInt16);

BATON_INLINE __m256i Broadcast4(const uint8_t* data) {
  return _mm256_castps_si256(_mm256_broadcast_ss(reinterpret_cast<const float*>(data)));
}
BATON_INLINE __m256i Widen(const uint8_t* data) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data)));
}

// 8 rows × kWidth columns of one block, rows [8 × half, 8 × half + 8).
template <bool kUnpacked, int kWidth>
BATON_INLINE void AddHalfBlock(const uint8_t* block, int half, const uint8_t* tile, float* sums) {
  __m256i dots[kWidth];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) {
    const __m256i rows = kUnpacked ? _mm256_load_si256(reinterpret_cast<const __m256i*>(block + i * 64 + half * 32))
                                   : Widen(block + i * 32 + half * 16);
#pragma GCC unroll 8
    for (int c = 0; c < kWidth; ++c) {
      const __m256i product = _mm256_madd_epi16(rows, Broadcast4(tile + (i * kWidth + c) * 4));
      dots[c] = i == 0 ? product : _mm256_add_epi32(dots[c], product);
      BATON_PIN(dots[c]);
    }
  }
  const float* unpacked = reinterpret_cast<const float*>(block + 1024) + half * 8;
  const float* scales = reinterpret_cast<const float*>(tile + kWidth * 64);
  const __m256 scale = kUnpacked ? _mm256_load_ps(unpacked) : LoadHalves(block + 512 + half * 16);
#pragma GCC unroll 8
  for (int c = 0; c < kWidth; ++c) {
    __m256 sum = _mm256_load_ps(sums + c * 16);
    sum = _mm256_fmadd_ps(_mm256_mul_ps(scale, _mm256_broadcast_ss(scales + c)), _mm256_cvtepi32_ps(dots[c]), sum);
    _mm256_store_ps(sums + c * 16, sum);
  }
}

// One column, bound by memory.
void MultiplyOne(const MultiplyArgs& args) {
  const uint8_t* block = args.panel;
  const uint8_t* tile = args.tiles;
  __m256 low = _mm256_setzero_ps();
  __m256 high = _mm256_setzero_ps();
  for (int64_t b = 0; b < args.k / kQuantBlock; ++b, block += kBlockBytes, tile += kColumnBytes) {
    for (int i = 0; i < 9; ++i) _mm_prefetch(reinterpret_cast<const char*>(block) + 2048 + i * 64, _MM_HINT_T0);
    __m256i dots_low = _mm256_setzero_si256();
    __m256i dots_high = _mm256_setzero_si256();
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const __m256i input = Broadcast4(tile + i * 4);
      dots_low = _mm256_add_epi32(dots_low, _mm256_madd_epi16(Widen(block + i * 32), input));
      dots_high = _mm256_add_epi32(dots_high, _mm256_madd_epi16(Widen(block + i * 32 + 16), input));
    }
    const float* scales = reinterpret_cast<const float*>(tile + 64);
    const __m256 scale = _mm256_broadcast_ss(scales);
    low = _mm256_fmadd_ps(_mm256_mul_ps(LoadHalves(block + 512), scale), _mm256_cvtepi32_ps(dots_low), low);
    high = _mm256_fmadd_ps(_mm256_mul_ps(LoadHalves(block + 528), scale), _mm256_cvtepi32_ps(dots_high), high);
  }
  _mm256_storeu_ps(args.out, low);
  _mm256_storeu_ps(args.out + 8, high);
}

// One tile of columns over some blocks; continues the sums in `out` unless these are the first blocks.
template <bool kUnpacked, int kWidth>
__attribute__((noinline)) void MultiplyTile(const uint8_t* block, int64_t blocks, const uint8_t* tile, float* out,
                                            int64_t stride, bool first) {
  alignas(32) float buffer[2 * kWidth * 8];
  float* sums = buffer;
  asm volatile("" : "+r"(sums)::"memory");  // an address, not registers
  for (int c = 0; c < kWidth; ++c) {
    for (int half = 0; half < 2; ++half) {
      const __m256 sum = first ? _mm256_setzero_ps() : _mm256_loadu_ps(out + c * stride + half * 8);
      _mm256_store_ps(sums + (c * 2 + half) * 8, sum);
    }
  }
  constexpr int kBytes = kUnpacked ? kUnpackedBytes : kBlockBytes;
  for (int64_t b = 0; b < blocks; ++b, block += kBytes, tile += kWidth * kColumnBytes) {
    if constexpr (!kUnpacked) {
      for (int i = 0; i < 9; ++i) _mm_prefetch(reinterpret_cast<const char*>(block) + 4 * kBytes + i * 64, _MM_HINT_T0);
    }
    AddHalfBlock<kUnpacked, kWidth>(block, 0, tile, sums);
    AddHalfBlock<kUnpacked, kWidth>(block, 1, tile, sums + 8);
  }
  for (int c = 0; c < kWidth; ++c) {
    for (int half = 0; half < 2; ++half) {
      _mm256_storeu_ps(out + c * stride + half * 8, _mm256_load_ps(sums + (c * 2 + half) * 8));
    }
  }
}

void Unpack(const uint8_t* block, int64_t blocks, uint8_t* out) {
  for (int64_t b = 0; b < blocks; ++b, block += kBlockBytes, out += kUnpackedBytes) {
    for (int i = 0; i < 32; ++i) _mm256_store_si256(reinterpret_cast<__m256i*>(out + i * 32), Widen(block + i * 16));
    float* scales = reinterpret_cast<float*>(out + 1024);
    for (int half = 0; half < 2; ++half) {
      _mm256_store_ps(scales + half * 8, LoadHalves(block + 512 + half * 16));
    }
  }
}

template <bool kUnpacked>
constexpr UnpackedProduct::MultiplyTile kTileFunctions[9] = {
    nullptr,
    MultiplyTile<kUnpacked, 1>,
    MultiplyTile<kUnpacked, 2>,
    MultiplyTile<kUnpacked, 3>,
    MultiplyTile<kUnpacked, 4>,
    MultiplyTile<kUnpacked, 5>,
    MultiplyTile<kUnpacked, 6>,
    MultiplyTile<kUnpacked, 7>,
    MultiplyTile<kUnpacked, 8>,
};

void Multiply(const MultiplyArgs& args) {
  const int64_t blocks = args.k / kQuantBlock;
  if (args.columns == 1) return MultiplyOne(args);
  if (args.columns <= 8) {
    return kTileFunctions<false>[args.columns](args.panel, blocks, args.tiles, args.out, args.out_stride, true);
  }
  MultiplyMany({TraitsOf(PackedKind::kQ8), kPanelBlocks, kMaxTileWidth, Unpack, kTileFunctions<true>}, args);
}

}  // namespace

void MultiplyQ8Avx2(const MultiplyArgs& args) { Multiply(args); }

}  // namespace baton::cpu

// Quantization of inputs, RMSNorm, RoPE, SwiGLU and rounding to F16, for AVX2.
#include <cstring>

#include "backend/cpu/avx2.h"
#include "backend/cpu/int8_row.h"
#include "backend/cpu/take_outliers.h"

namespace baton::cpu {
namespace {

using avx2::Exp;
using avx2::SumLanes;

struct QuantizedBlock {
  __m256i q[4];
  float scale;
  int32_t sums[2];  // of the first 16, and of the others
};

// The largest magnitude of vectors of magnitudes, as bits.
BATON_INLINE uint32_t LargestLane(__m256i magnitudes) {
  __m128i half = _mm_max_epi32(_mm256_castsi256_si128(magnitudes), _mm256_extracti128_si256(magnitudes, 1));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0x4e));
  half = _mm_max_epi32(half, _mm_shuffle_epi32(half, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(half));
}
BATON_INLINE __m256i Magnitudes(__m256 x) {
  return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fffffff));
}
BATON_INLINE float FloatOf(uint32_t bits) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(bits))));
}

BATON_INLINE QuantizedBlock Quantize(const float* x, float range) {
  __m256 value[4];
  __m256i largest = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) {
    value[i] = _mm256_loadu_ps(x + i * 8);
    // Of the bits: NaN is larger than anything, so it survives as the scale.
    largest = _mm256_max_epi32(largest, Magnitudes(value[i]));
  }
  const float max = FloatOf(LargestLane(largest));
  QuantizedBlock block;
  block.scale = max / range;
  const __m256 inverse = _mm256_set1_ps(max > 0 ? range / max : 0.0f);
  __m256i* q = block.q;
  for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(value[i], inverse));
  __m256i sums = _mm256_hadd_epi32(_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3]));
  sums = _mm256_hadd_epi32(sums, sums);
  const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  block.sums[0] = _mm_cvtsi128_si32(sum);
  block.sums[1] = _mm_extract_epi32(sum, 1);
  return block;
}

// Saturate: NaN and infinity, which the scale keeps, become the lowest number.
BATON_INLINE void StoreBytes(const __m256i* q, uint32_t* out) {
  const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(packed, order));
}
BATON_INLINE void StoreWords(const __m256i* q, uint32_t* out) {
  for (int i = 0; i < 2; ++i) {
    const __m256i packed = _mm256_packs_epi32(q[2 * i], q[2 * i + 1]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(out + i * 8), _mm256_permute4x64_epi64(packed, 0xd8));
  }
}

// One block of a column into its tile.
BATON_INLINE void PutBlock(InputKind kind, const float* x, int width, int c, uint8_t* tile) {
  const bool int8 = kind != InputKind::kInt16;
  const int words = ColumnValueBytes(kind) / 4;  // groups of a column
  float* scales = reinterpret_cast<float*>(tile + width * words * 4);
  const QuantizedBlock block = Quantize(x, InputRange(kind));
  alignas(32) uint32_t group[16];
  int8 ? StoreBytes(block.q, group) : StoreWords(block.q, group);
  for (int i = 0; i < words; ++i) std::memcpy(tile + (i * width + c) * 4, group + i, 4);
  scales[c] = block.scale;
  if (kind == InputKind::kInt8Halves) {
    scales[width + c] = block.scale * static_cast<float>(block.sums[0]);
    scales[2 * width + c] = block.scale * static_cast<float>(block.sums[1]);
  } else {
    scales[width + c] = block.scale * static_cast<float>(block.sums[0] + block.sums[1]);
  }
}

BATON_INLINE uint32_t LargestOfBlock(const float* x) {
  __m256i largest = _mm256_setzero_si256();
  for (int i = 0; i < 4; ++i) largest = _mm256_max_epi32(largest, Magnitudes(_mm256_loadu_ps(x + i * 8)));
  return LargestLane(largest);
}

}  // namespace

void QuantizeTileAvx2(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile,
                      Outlier* outliers) {
  const int64_t blocks = k / kQuantBlock;
  const int64_t block_bytes = width * ColumnBlockBytes(kind);
  const int each = OutliersOf(kind, k);
  for (int c = 0; c < width; ++c, x += stride, outliers += each) {
    if (each == 0) {
      for (int64_t b = 0; b < blocks; ++b) PutBlock(kind, x + b * kQuantBlock, width, c, tile + b * block_bytes);
      continue;
    }
    alignas(32) float group[kOutlierGroup * kQuantBlock];
    Outlier* out = outliers;
    for (int64_t first = 0; first < blocks; first += kOutlierGroup) {
      const int count = static_cast<int>(blocks - first < kOutlierGroup ? blocks - first : kOutlierGroup);
      std::memcpy(group, x + first * kQuantBlock, sizeof(float) * count * kQuantBlock);
      TakeOutliers(
          group, count, first * kQuantBlock, [](const float* block) { return LargestOfBlock(block); }, out);
      out += OutliersOfGroup(count);
      for (int b = 0; b < count; ++b)
        PutBlock(kind, group + b * kQuantBlock, width, c, tile + (first + b) * block_bytes);
    }
  }
}

void NormAvx2(const NormArgs& args) {
  const int64_t vectors = args.size & ~int64_t{7};
  __m256 squares = _mm256_setzero_ps();
  for (int64_t i = 0; i < vectors; i += 8) {
    __m256 x = _mm256_loadu_ps(args.residual + i);
    if (args.delta != nullptr) {
      x = _mm256_add_ps(x, _mm256_loadu_ps(args.delta + i));
      _mm256_storeu_ps(args.residual + i, x);
    }
    squares = _mm256_fmadd_ps(x, x, squares);
  }
  float sum = SumLanes(squares);
  for (int64_t i = vectors; i < args.size; ++i) {
    if (args.delta != nullptr) args.residual[i] += args.delta[i];
    sum += args.residual[i] * args.residual[i];
  }
  const float mean = sum / static_cast<float>(args.size) + args.epsilon;
  const float factor = 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean)));
  const __m256 factors = _mm256_set1_ps(factor);
  for (int64_t i = 0; i < vectors; i += 8) {
    const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(args.residual + i), factors);
    _mm256_storeu_ps(args.out + i, _mm256_mul_ps(scaled, _mm256_loadu_ps(args.weight + i)));
  }
  for (int64_t i = vectors; i < args.size; ++i) args.out[i] = args.residual[i] * factor * args.weight[i];
}

void RotateAvx2(float* x, int heads, int head_dim, const float* cosines, const float* sines, bool interleaved) {
  const int half = head_dim / 2;
  const int vectors = half & ~7;
  for (int head = 0; head < heads; ++head, x += head_dim) {
    for (int i = 0; i < vectors; i += 8) {
      const __m256 cosine = _mm256_loadu_ps(cosines + i);
      const __m256 sine = _mm256_loadu_ps(sines + i);
      if (!interleaved) {
        const __m256 a = _mm256_loadu_ps(x + i);
        const __m256 b = _mm256_loadu_ps(x + half + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, cosine, _mm256_mul_ps(b, sine)));
        _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(a, sine, _mm256_mul_ps(b, cosine)));
        continue;
      }
      const __m256 first = _mm256_loadu_ps(x + 2 * i);
      const __m256 second = _mm256_loadu_ps(x + 2 * i + 8);
      // Within 128-bit lanes: a = pairs 0 1 4 5 | 2 3 6 7, so cosines and sines are put into that order too.
      const __m256 a = _mm256_shuffle_ps(first, second, 0x88);
      const __m256 b = _mm256_shuffle_ps(first, second, 0xdd);
      const __m256i order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
      const __m256 c = _mm256_permutevar8x32_ps(cosine, order);
      const __m256 s = _mm256_permutevar8x32_ps(sine, order);
      const __m256 even = _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s));
      const __m256 odd = _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c));
      _mm256_storeu_ps(x + 2 * i, _mm256_unpacklo_ps(even, odd));
      _mm256_storeu_ps(x + 2 * i + 8, _mm256_unpackhi_ps(even, odd));
    }
    for (int i = vectors; i < half; ++i) {
      float& first = interleaved ? x[2 * i] : x[i];
      float& second = interleaved ? x[2 * i + 1] : x[half + i];
      const float a = first;
      const float b = second;
      first = __builtin_fmaf(a, cosines[i], -(b * sines[i]));
      second = __builtin_fmaf(a, sines[i], b * cosines[i]);
    }
  }
}

void StoreHalfAvx2(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), halves);
  }
  for (int64_t i = count & ~int64_t{7}; i < count; ++i) out[i] = _cvtss_sh(x[i], _MM_FROUND_TO_NEAREST_INT);
}

void StoreInt8Avx2(const float* x, int64_t count, uint8_t* out) {
  __m256i largest = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 8) {  // of the bits, as for quantized input
    largest = _mm256_max_epi32(largest, Magnitudes(_mm256_loadu_ps(x + i)));
  }
  const float max = FloatOf(LargestLane(largest));
  const float scale = max / 127.0f;
  const __m256 inverse = _mm256_set1_ps(max > 0 ? 127.0f / max : 0.0f);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i), _mm_packs_epi16(words, words));
  }
  std::memcpy(out + count, &scale, sizeof(scale));
}

void StoreInt8KeyAvx2(const float* x, int64_t count, uint8_t* out) {
  uint32_t most = 0;
  int64_t index = 0;
  uint32_t others = 0;
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i magnitudes = Magnitudes(_mm256_loadu_ps(x + i));
    const uint32_t here = LargestLane(magnitudes);
    if (i > 0 && here <= most) {
      others = here > others ? here : others;
      continue;
    }
    others = most > others ? most : others;
    most = here;
    const __m256i equal = _mm256_cmpeq_epi32(magnitudes, _mm256_set1_epi32(static_cast<int>(here)));
    const int lane = __builtin_ctz(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(equal))));
    index = i + lane;
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const uint32_t beside =
        LargestLane(_mm256_andnot_si256(_mm256_cmpeq_epi32(lanes, _mm256_set1_epi32(lane)), magnitudes));
    others = beside > others ? beside : others;
  }
  const uint32_t bits = KeyScaleBits(FloatOf(most), FloatOf(others));
  const float scale = FloatOf(bits);
  const float factor = scale > 0 ? 1.0f / scale : 0.0f;
  const __m256 inverse = _mm256_set1_ps(factor);
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i q = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), inverse));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i), _mm_packs_epi16(words, words));
  }
  int q = _mm_cvtss_si32(_mm_set_ss(x[index] * factor));
  q = q < -16256 ? -16256 : q > 16256 ? 16256 : q;
  const int high = (q + 64) >> 7;
  out[index] = static_cast<uint8_t>(q - 128 * high);
  const uint32_t tail = KeyTail(bits, static_cast<int>(index), high);
  std::memcpy(out + count, &tail, sizeof(tail));
}

void SwiGluAvx2(const float* gate, const float* up, int64_t count, float* out) {
  const __m256 one = _mm256_set1_ps(1.0f);
  const __m256 sign = _mm256_set1_ps(-0.0f);
  for (int64_t i = 0; i < count; i += 8) {
    const int64_t left = count - i;
    alignas(32) float padded[3][8];
    const float* g = gate + i;
    const float* u = up + i;
    float* o = out + i;
    if (left < 8) {  // the tail through a padded copy, by the same instructions
      std::memset(padded, 0, sizeof(padded));
      std::memcpy(padded[0], g, left * sizeof(float));
      std::memcpy(padded[1], u, left * sizeof(float));
      g = padded[0];
      u = padded[1];
      o = padded[2];
    }
    const __m256 x = _mm256_loadu_ps(g);
    const __m256 sigmoid = _mm256_div_ps(x, _mm256_add_ps(one, Exp(_mm256_xor_ps(x, sign))));
    _mm256_storeu_ps(o, _mm256_mul_ps(sigmoid, _mm256_loadu_ps(u)));
    if (left < 8) std::memcpy(out + i, o, left * sizeof(float));
  }
}

}  // namespace baton::cpu

// Kernels in portable C++: the baseline for any machine, and the readable definition of what the others compute.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cpu/float16.h"
#include "backend/cpu/kernels.h"

namespace baton::cpu {
namespace {

// e^x to about 1e-7, by 2^n × polynomial; exactly 0 below -87.
float Exp(float x) {
  if (!(x >= -87.0f)) return std::isnan(x) ? x : 0.0f;
  x = std::min(x, 88.0f);
  // Adding and taking away 1.5 × 2^23 rounds to the nearest integer, ties to even.
  const float n = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

// ---- quantized input ----

struct QuantizedBlock {
  int8_t q[kQuantBlock];
  float scale;
  float scaled_sum;
};

QuantizedBlock Quantize(const float* x) {
  // Of the bits: NaN is larger than anything, so it survives as the scale.
  uint32_t largest = 0;
  for (int i = 0; i < kQuantBlock; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  const float max = std::bit_cast<float>(largest);
  QuantizedBlock block;
  block.scale = max / 127.0f;
  const float inverse = max > 0 ? 127.0f / max : 0.0f;
  int sum = 0;
  for (int i = 0; i < kQuantBlock; ++i) {
    const float scaled = x[i] * inverse;
    // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even.
    const int q = std::bit_cast<int32_t>(scaled + 12582912.0f) - 0x4b400000;
    block.q[i] = static_cast<int8_t>(std::clamp(q, -127, 127));
    sum += block.q[i];
  }
  block.scaled_sum = block.scale * static_cast<float>(sum);
  return block;
}

void QuantizeTile(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile) {
  for (int64_t b = 0; b < k / kQuantBlock; ++b, tile += width * ColumnBlockBytes(kind)) {
    float* scales = reinterpret_cast<float*>(tile + width * (kind == InputKind::kInt8 ? 32 : 64));
    for (int c = 0; c < width; ++c) {
      const QuantizedBlock block = Quantize(x + c * stride + b * kQuantBlock);
      if (kind == InputKind::kInt8) {
        for (int i = 0; i < 8; ++i) std::memcpy(tile + (i * width + c) * 4, block.q + i * 4, 4);
      } else {
        for (int i = 0; i < 16; ++i) {
          const int16_t pair[2] = {block.q[i * 2], block.q[i * 2 + 1]};
          std::memcpy(tile + (i * width + c) * 4, pair, 4);
        }
      }
      scales[c] = block.scale;
      scales[width + c] = block.scaled_sum;
    }
  }
}

// ---- products ----

constexpr int kLanes = 32;  // bytes of a group of weights: 8 rows × 4 k (nibbles) or 16 rows × 2 k

// Sums of one block for 16 rows, in the order in which the weights lie, so that compilers can use vectors.
template <InputKind kInput>
void BlockSums(const uint8_t* block, const uint8_t* column, int width, int32_t* sums) {
  if constexpr (kInput == InputKind::kInt8) {
    int16_t low[kLanes] = {};  // 8 × 15 × 127 fits
    int16_t high[kLanes] = {};
    for (int i = 0; i < 8; ++i, block += kLanes, column += width * 4) {
      int16_t input[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) input[lane] = static_cast<int8_t>(column[lane % 4]);
      for (int lane = 0; lane < kLanes; ++lane) {
        low[lane] = static_cast<int16_t>(low[lane] + (block[lane] & 15) * input[lane]);
        high[lane] = static_cast<int16_t>(high[lane] + (block[lane] >> 4) * input[lane]);
      }
    }
    for (int row = 0; row < 8; ++row) {
      sums[row] = low[row * 4] + low[row * 4 + 1] + low[row * 4 + 2] + low[row * 4 + 3];
      sums[row + 8] = high[row * 4] + high[row * 4 + 1] + high[row * 4 + 2] + high[row * 4 + 3];
    }
  } else {
    int32_t products[kLanes] = {};
    for (int i = 0; i < 16; ++i, block += kLanes, column += width * 4) {
      int16_t pair[2];
      std::memcpy(pair, column, 4);
      int16_t input[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) input[lane] = pair[lane % 2];
      for (int lane = 0; lane < kLanes; ++lane) {
        products[lane] += static_cast<int16_t>(static_cast<int8_t>(block[lane]) * input[lane]);  // 128 × 127 fits
      }
    }
    for (int row = 0; row < kPanelRows; ++row) sums[row] = products[row * 2] + products[row * 2 + 1];
  }
}

template <PackedKind kKind>
void MultiplyQuantized(const MultiplyArgs& args) {
  constexpr bool kNibbles = kKind == PackedKind::kQ4 || kKind == PackedKind::kQ4Min;
  constexpr bool kMinimum = kKind == PackedKind::kQ4Min || kKind == PackedKind::kQ8Min;
  constexpr InputKind kInput = kNibbles ? InputKind::kInt8 : InputKind::kInt16;
  constexpr int kWeightBytes = kNibbles ? 256 : 512;
  const int64_t blocks = args.k / kQuantBlock;
  for (int c = 0; c < args.columns; ++c) std::fill_n(args.out + c * args.out_stride, kPanelRows, 0.0f);
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* block = args.panel + b * (kWeightBytes + (kMinimum ? 64 : 32));
    uint16_t halves[2 * kPanelRows] = {};
    std::memcpy(halves, block + kWeightBytes, kMinimum ? 64 : 32);
    float scale[kPanelRows];
    float minimum[kPanelRows];
    for (int row = 0; row < kPanelRows; ++row) {
      scale[row] = HalfToFloat(halves[row]);
      minimum[row] = kMinimum ? HalfToFloat(halves[kPanelRows + row]) : -8.0f * scale[row];
    }
    int width;
    for (int first = 0; first < args.columns; first += width) {
      width = TileWidth(kInput, args.columns, first);
      const uint8_t* tile = args.tiles + (first * blocks + b * width) * ColumnBlockBytes(kInput);
      const float* scales = reinterpret_cast<const float*>(tile + width * (kNibbles ? 32 : 64));
      for (int c = 0; c < width; ++c) {
        int32_t sums[kPanelRows];
        BlockSums<kInput>(block, tile + c * 4, width, sums);
        float* out = args.out + (first + c) * args.out_stride;
        for (int row = 0; row < kPanelRows; ++row) {
          out[row] += scale[row] * scales[c] * static_cast<float>(sums[row]);
          if constexpr (kKind != PackedKind::kQ8) out[row] += minimum[row] * scales[width + c];
        }
      }
    }
  }
}

template <PackedKind kKind>
void MultiplyPlain(const MultiplyArgs& args) {
  for (int c = 0; c < args.columns; ++c) {
    float sums[kPanelRows] = {};
    const float* x = args.floats + c * args.float_stride;
    for (int64_t k = 0; k < args.k; ++k) {
      for (int row = 0; row < kPanelRows; ++row) {
        float weight;
        if constexpr (kKind == PackedKind::kF32) {
          std::memcpy(&weight, args.panel + (k * kPanelRows + row) * 4, 4);
        } else {
          uint16_t bits;
          std::memcpy(&bits, args.panel + (k * kPanelRows + row) * 2, 2);
          weight = kKind == PackedKind::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits);
        }
        sums[row] += weight * x[k];
      }
    }
    std::copy_n(sums, kPanelRows, args.out + c * args.out_stride);
  }
}

// ---- the rest of a layer ----

void Norm(const NormArgs& args) {
  if (args.delta != nullptr) {
    for (int64_t i = 0; i < args.size; ++i) args.residual[i] += args.delta[i];
  }
  float lanes[8] = {};
  for (int64_t i = 0; i < args.size; ++i) lanes[i % 8] += args.residual[i] * args.residual[i];
  const float sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  const float factor = 1.0f / std::sqrt(sum / static_cast<float>(args.size) + args.epsilon);
  for (int64_t i = 0; i < args.size; ++i) args.out[i] = args.residual[i] * factor * args.weight[i];
}

void Rotate(float* x, int heads, int head_dim, const float* cosines, const float* sines, bool interleaved) {
  const int half = head_dim / 2;
  const int step = interleaved ? 2 : 1;
  const int pair = interleaved ? 1 : half;
  for (int head = 0; head < heads; ++head, x += head_dim) {
    for (int i = 0; i < half; ++i) {
      const float a = x[i * step];
      const float b = x[i * step + pair];
      x[i * step] = a * cosines[i] - b * sines[i];
      x[i * step + pair] = a * sines[i] + b * cosines[i];
    }
  }
}

void StoreHalf(const float* x, int64_t count, uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = FloatToHalf(x[i]);
}

void LoadTile(const AttentionArgs& args, const uint8_t* plane, int first_token, int tokens, float* out) {
  const int64_t row_bytes = int64_t{args.head_dim} * (args.f16 ? 2 : 4);
  for (int t = 0; t < tokens; ++t, out += args.head_dim) {
    const int token = first_token + t;
    const uint8_t* row =
        plane + args.block_table[token / args.block_size] * args.block_bytes + token % args.block_size * row_bytes;
    if (!args.f16) {
      std::memcpy(out, row, row_bytes);
      continue;
    }
    for (int d = 0; d < args.head_dim; ++d) {
      uint16_t bits;
      std::memcpy(&bits, row + d * 2, 2);
      out[d] = HalfToFloat(bits);
    }
  }
}

// The running softmax of one query head: maximum, sum of weights, weighted sum of V.
struct SoftmaxState {
  float* maximum;
  float* sum;
  float* values;  // [head_dim]
};

// Adds `tokens` tokens of a tile.
void AddTile(const float* q, const float* k, const float* v, int tokens, int head_dim, SoftmaxState state) {
  float weights[kAttentionTile];
  float maximum = *state.maximum;
  for (int t = 0; t < tokens; ++t) {
    float lanes[8] = {};
    for (int d = 0; d < head_dim; ++d) lanes[d % 8] += q[d] * k[t * head_dim + d];
    weights[t] = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    maximum = std::max(maximum, weights[t]);
  }
  const float correction = Exp(*state.maximum - maximum);
  float sum = 0;
  for (int t = 0; t < tokens; ++t) {
    weights[t] = Exp(weights[t] - maximum);
    sum += weights[t];
  }
  *state.maximum = maximum;
  *state.sum = *state.sum * correction + sum;
  for (int d = 0; d < head_dim; ++d) state.values[d] *= correction;
  for (int t = 0; t < tokens; ++t) {
    for (int d = 0; d < head_dim; ++d) state.values[d] += weights[t] * v[t * head_dim + d];
  }
}

void Attention(const AttentionArgs& args) {
  const int dim = args.head_dim;
  const int rows = args.queries * args.heads;
  float* k = args.scratch;
  float* v = k + kAttentionTile * dim;
  float* q = v + kAttentionTile * dim;
  float* values = q + rows * dim;
  float* maxima = values + rows * dim;
  float* sums = maxima + rows;
  for (int row = 0; row < rows; ++row) {
    const float* source = args.q + row / args.heads * args.q_stride + row % args.heads * dim;
    for (int d = 0; d < dim; ++d) q[row * dim + d] = source[d] * args.scale;
    maxima[row] = -INFINITY;
    sums[row] = 0;
  }
  std::fill_n(values, rows * dim, 0.0f);
  const int end = args.first_position + args.queries;  // tokens that the last query sees
  for (int first = 0; first < end; first += kAttentionTile) {
    const int loaded = std::min(kAttentionTile, end - first);
    LoadTile(args, args.k, first, loaded, k);
    LoadTile(args, args.v, first, loaded, v);
    for (int row = 0; row < rows; ++row) {
      const int visible = std::min(loaded, args.first_position + row / args.heads + 1 - first);
      if (visible <= 0) continue;
      AddTile(q + row * dim, k, v, visible, dim, {maxima + row, sums + row, values + row * dim});
    }
  }
  for (int row = 0; row < rows; ++row) {
    float* out = args.out + row / args.heads * args.out_stride + row % args.heads * dim;
    for (int d = 0; d < dim; ++d) out[d] = values[row * dim + d] / sums[row];
  }
}

void SwiGlu(const float* gate, const float* up, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = gate[i] / (1.0f + Exp(-gate[i])) * up[i];
}

}  // namespace

const Kernels& PlainKernels() {
  static constexpr Kernels kKernels = {
      "plain",
      QuantizeTile,
      {MultiplyPlain<PackedKind::kF32>, MultiplyPlain<PackedKind::kF16>, MultiplyPlain<PackedKind::kBF16>,
       MultiplyQuantized<PackedKind::kQ4>, MultiplyQuantized<PackedKind::kQ4Min>, MultiplyQuantized<PackedKind::kQ8>,
       MultiplyQuantized<PackedKind::kQ8Min>},
      Norm,
      Rotate,
      StoreHalf,
      Attention,
      SwiGlu,
  };
  return kKernels;
}

}  // namespace baton::cpu

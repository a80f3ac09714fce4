// Products in portable C++: the readable definition of what the vector kernels compute. Sums are taken in the order in
// which the weights lie, so that compilers can use vectors.
#include <algorithm>
#include <bit>
#include <cstring>

#include "backend/cpu/float16.h"
#include "backend/cpu/plain.h"
#include "backend/cpu/take_outliers.h"

namespace baton::cpu {
namespace {

constexpr int kSteps = 8;   // of four columns in a block
constexpr int kLanes = 32;  // 8 rows × 4 columns, or 16 rows × 2

// ---- quantized input ----

struct QuantizedBlock {
  int16_t q[kQuantBlock];
  float scale;
  int sums[2];  // of the first 16, and of the others
};

// Of the bits: NaN is larger than anything, so it survives as the scale.
uint32_t LargestOfBlock(const float* x) {
  uint32_t largest = 0;
  for (int i = 0; i < kQuantBlock; ++i) largest = std::max(largest, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  return largest;
}

QuantizedBlock Quantize(const float* x, float range) {
  const float max = std::bit_cast<float>(LargestOfBlock(x));
  QuantizedBlock block;
  block.scale = max / range;
  const float inverse = max > 0 ? range / max : 0.0f;
  const int limit = static_cast<int>(range);
  block.sums[0] = block.sums[1] = 0;
  for (int i = 0; i < kQuantBlock; ++i) {
    const float scaled = x[i] * inverse;
    // Adding 1.5 × 2^23 rounds to the nearest integer, ties to even.
    const int q = std::bit_cast<int32_t>(scaled + 12582912.0f) - 0x4b400000;
    block.q[i] = static_cast<int16_t>(std::clamp(q, -limit, limit));
    block.sums[i / 16] += block.q[i];
  }
  return block;
}

// ---- weights of 4 to 6 bits ----

struct UnpackedBlock {
  uint8_t q[kSteps][2][kLanes];  // rows 0-7, rows 8-15
  float scale[2][kPanelRows];    // of each part
  float minimum[2][kPanelRows];
};

float Half(const uint8_t* data) {
  uint16_t bits;
  std::memcpy(&bits, data, 2);
  return HalfToFloat(bits);
}

template <PackedKind kKind>
void Unpack(const uint8_t* header, const uint8_t* block, UnpackedBlock& out) {
  constexpr PackedTraits kTraits = TraitsOf(kKind);
  for (int step = 0; step < kSteps; ++step) {
    for (int half = 0; half < 2; ++half) {
      const uint8_t* fifth = block + 256 + half * kLanes;
      const uint8_t* pairs = block + 256 + (step / 4 * 2 + half) * kLanes;
      for (int lane = 0; lane < kLanes; ++lane) {
        int q = block[step * kLanes + lane] >> (4 * half) & 15;
        if constexpr (kTraits.bits == 5) q |= (fifth[lane] >> step & 1) << 4;
        if constexpr (kTraits.bits == 6) q |= (pairs[lane] >> (step % 4 * 2) & 3) << 4;
        out.q[step][half][lane] = static_cast<uint8_t>(q);
      }
    }
  }
  const uint8_t* scales = block + kTraits.weight_bytes;
  for (int row = 0; row < kPanelRows; ++row) {
    if constexpr (kKind == PackedKind::kQ6K) {
      for (int part = 0; part < 2; ++part) {
        const float factor = static_cast<float>(static_cast<int8_t>(scales[part * kPanelRows + row]));
        out.scale[part][row] = Half(header + row * 2) * factor;
        out.minimum[part][row] = -32.0f * out.scale[part][row];
      }
    } else if constexpr (kTraits.header_bytes > 0) {
      out.scale[0][row] = Half(header + row * 2) * static_cast<float>(scales[row]);
      out.minimum[0][row] = Half(header + 32 + row * 2) * static_cast<float>(scales[kPanelRows + row]);
    } else {
      const bool stored = kKind == PackedKind::kQ4Min || kKind == PackedKind::kQ5Min;
      out.scale[0][row] = Half(scales + row * 2);
      out.minimum[0][row] = stored ? Half(scales + 32 + row * 2) : out.scale[0][row] * (kTraits.bits == 4 ? -8 : -16);
    }
  }
}

// Steps [first, first + kCount) of one column for 16 rows. int16 holds 8 × 31 × 127 and 4 × 63 × 127.
template <int kCount>
void PartSums(const UnpackedBlock& block, int first, const uint8_t* column, int width, int32_t* sums) {
  int16_t lanes[2][kLanes] = {};
  for (int step = first; step < first + kCount; ++step) {
    int16_t input[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) input[lane] = static_cast<int8_t>(column[step * width * 4 + lane % 4]);
    for (int half = 0; half < 2; ++half) {
      for (int lane = 0; lane < kLanes; ++lane) {
        lanes[half][lane] = static_cast<int16_t>(lanes[half][lane] + block.q[step][half][lane] * input[lane]);
      }
    }
  }
  for (int row = 0; row < kPanelRows; ++row) {
    const int16_t* four = lanes[row / 8] + row % 8 * 4;
    sums[row] = four[0] + four[1] + four[2] + four[3];
  }
}

void AddOutliers(PackedKind kind, const MultiplyArgs& args) {
  const Outlier* outlier = args.outliers;
  for (int c = 0; c < args.columns; ++c) {
    for (int i = 0; i < args.outliers_each; ++i, ++outlier) {
      float weights[kPanelRows];
      DequantizePanelColumn(kind, args.panel, outlier->column, weights);
      for (int row = 0; row < kPanelRows; ++row) args.out[c * args.out_stride + row] += weights[row] * outlier->value;
    }
  }
}

template <PackedKind kKind>
void MultiplyNibbles(const MultiplyArgs& args) {
  constexpr PackedTraits kTraits = TraitsOf(kKind);
  const int64_t blocks = args.k / kQuantBlock;
  for (int c = 0; c < args.columns; ++c) std::fill_n(args.out + c * args.out_stride, kPanelRows, 0.0f);
  UnpackedBlock unpacked;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t group = b / kHeaderBlocks * kHeaderBlocks;
    Unpack<kKind>(args.panel + BlockOffset(kTraits, group) - kTraits.header_bytes, args.panel + BlockOffset(kTraits, b),
                  unpacked);
    int width;
    for (int first = 0; first < args.columns; first += width) {
      width = TileWidth(kPlainTileWidth, args.columns, first);
      const uint8_t* tile = args.tiles + (first * blocks + b * width) * ColumnBlockBytes(kTraits.input);
      const float* scales = reinterpret_cast<const float*>(tile + width * ColumnValueBytes(kTraits.input));
      for (int c = 0; c < width; ++c) {
        float* out = args.out + (first + c) * args.out_stride;
        for (int part = 0; part < kTraits.parts; ++part) {
          int32_t sums[kPanelRows];
          PartSums<kSteps / kTraits.parts>(unpacked, part * kSteps / kTraits.parts, tile + c * 4, width, sums);
          for (int row = 0; row < kPanelRows; ++row) {
            out[row] += unpacked.scale[part][row] * scales[c] * static_cast<float>(sums[row]);
            out[row] += unpacked.minimum[part][row] * scales[(1 + part) * width + c];
          }
        }
      }
    }
  }
}

// ---- weights of 8 bits ----

void ByteSums(const uint8_t* block, const uint8_t* column, int width, int32_t* sums) {
  int32_t products[kLanes] = {};
  for (int i = 0; i < 16; ++i, block += kLanes, column += width * 4) {
    int16_t pair[2];
    std::memcpy(pair, column, 4);
    int16_t input[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) input[lane] = pair[lane % 2];
    for (int lane = 0; lane < kLanes; ++lane) {
      const int16_t weight = static_cast<int8_t>(block[lane]);
      products[lane] += int32_t{weight} * int32_t{input[lane]};
    }
  }
  for (int row = 0; row < kPanelRows; ++row) sums[row] = products[row * 2] + products[row * 2 + 1];
}

void MultiplyBytes(const MultiplyArgs& args) {
  constexpr PackedTraits kTraits = TraitsOf(PackedKind::kQ8);
  const int64_t blocks = args.k / kQuantBlock;
  for (int c = 0; c < args.columns; ++c) std::fill_n(args.out + c * args.out_stride, kPanelRows, 0.0f);
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* block = args.panel + b * kTraits.block_bytes;
    float weights[kPanelRows];
    for (int row = 0; row < kPanelRows; ++row) weights[row] = Half(block + kTraits.weight_bytes + row * 2);
    int width;
    for (int first = 0; first < args.columns; first += width) {
      width = TileWidth(kMaxTileWidth, args.columns, first);
      const uint8_t* tile = args.tiles + (first * blocks + b * width) * ColumnBlockBytes(kTraits.input);
      const float* scales = reinterpret_cast<const float*>(tile + width * ColumnValueBytes(kTraits.input));
      for (int c = 0; c < width; ++c) {
        int32_t sums[kPanelRows];
        ByteSums(block, tile + c * 4, width, sums);
        float* out = args.out + (first + c) * args.out_stride;
        for (int row = 0; row < kPanelRows; ++row) out[row] += weights[row] * scales[c] * static_cast<float>(sums[row]);
      }
    }
  }
}

// ---- weights that are numbers ----

template <PackedKind kKind>
void MultiplyNumbers(const MultiplyArgs& args) {
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

// One block of a column into its tile.
void PutBlock(InputKind kind, const float* x, int width, int c, uint8_t* tile) {
  float* scales = reinterpret_cast<float*>(tile + width * ColumnValueBytes(kind));
  const QuantizedBlock block = Quantize(x, InputRange(kind));
  if (kind == InputKind::kInt16) {
    for (int i = 0; i < 16; ++i) std::memcpy(tile + (i * width + c) * 4, block.q + i * 2, 4);
  } else {
    for (int k = 0; k < kQuantBlock; ++k) {
      tile[(k / 4 * width + c) * 4 + k % 4] = static_cast<uint8_t>(block.q[k]);
    }
  }
  scales[c] = block.scale;
  if (kind == InputKind::kInt8Halves) {
    scales[width + c] = block.scale * static_cast<float>(block.sums[0]);
    scales[2 * width + c] = block.scale * static_cast<float>(block.sums[1]);
  } else {
    scales[width + c] = block.scale * static_cast<float>(block.sums[0] + block.sums[1]);
  }
}

}  // namespace

void QuantizeTilePlain(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile,
                       Outlier* outliers) {
  const int64_t blocks = k / kQuantBlock;
  const int64_t block_bytes = width * ColumnBlockBytes(kind);
  for (int c = 0; c < width; ++c, x += stride) {
    float group[kOutlierGroup * kQuantBlock];
    for (int64_t first = 0; first < blocks; first += kOutlierGroup) {
      const int count = static_cast<int>(std::min<int64_t>(blocks - first, kOutlierGroup));
      std::copy_n(x + first * kQuantBlock, count * kQuantBlock, group);
      if (OutliersOf(kind, k) > 0) {
        TakeOutliers(group, count, first * kQuantBlock, LargestOfBlock, outliers);
        outliers += OutliersOfGroup(count);
      }
      for (int b = 0; b < count; ++b)
        PutBlock(kind, group + b * kQuantBlock, width, c, tile + (first + b) * block_bytes);
    }
  }
}

template <PackedKind kKind>
void MultiplyPlain(const MultiplyArgs& args) {
  if constexpr (TraitsOf(kKind).bits == 0) {
    MultiplyNumbers<kKind>(args);
  } else if constexpr (kKind == PackedKind::kQ8) {
    MultiplyBytes(args);
  } else {
    MultiplyNibbles<kKind>(args);
    AddOutliers(kKind, args);
  }
}

template void MultiplyPlain<PackedKind::kF32>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kF16>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kBF16>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ8>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ4>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ4Min>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ5>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ5Min>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ4K>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ5K>(const MultiplyArgs&);
template void MultiplyPlain<PackedKind::kQ6K>(const MultiplyArgs&);

}  // namespace baton::cpu

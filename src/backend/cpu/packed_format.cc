#include "backend/cpu/packed_format.h"

#include <cstring>

#include "backend/cpu/float16.h"
#include "backend/cpu/gguf_block.h"

namespace baton::cpu {
namespace {

constexpr int kSteps = 8;   // of four columns in a block
constexpr int kLanes = 32;  // 8 rows × 4 columns

uint16_t LoadHalf(const uint8_t* data) {
  uint16_t bits;
  std::memcpy(&bits, data, 2);
  return bits;
}

bool HasMinimum(PackedKind kind) { return kind == PackedKind::kQ4Min || kind == PackedKind::kQ5Min; }

uint32_t LoadFour(const uint8_t* data) {
  uint32_t word;
  std::memcpy(&word, data, 4);
  return word;
}
void OrFour(uint8_t* data, uint32_t word) {
  word |= LoadFour(data);
  std::memcpy(data, &word, 4);
}

// 16 rows × 32 columns of q → the block's weights, four columns of a row at a time: loading a model waits for this.
void PutNibbles(const QuantBlock* rows, int bits, uint8_t* out) {
  for (int step = 0; step < kSteps; ++step) {
    for (int row = 0; row < kPanelRows / 2; ++row) {
      const uint32_t low = LoadFour(rows[row].q + step * 4);
      const uint32_t high = LoadFour(rows[row + 8].q + step * 4);
      OrFour(out + step * kLanes + row * 4, (low & 0x0f0f0f0f) | (high & 0x0f0f0f0f) << 4);
      if (bits == 5) {
        uint8_t* fifth = out + 256 + row * 4;
        OrFour(fifth, (low >> 4 & 0x01010101) << step);
        OrFour(fifth + kLanes, (high >> 4 & 0x01010101) << step);
      } else if (bits == 6) {
        uint8_t* pair = out + 256 + step / 4 * 2 * kLanes + row * 4;
        OrFour(pair, (low >> 4 & 0x03030303) << (step % 4 * 2));
        OrFour(pair + kLanes, (high >> 4 & 0x03030303) << (step % 4 * 2));
      }
    }
  }
}
void PutBytes(const QuantBlock* rows, uint8_t* out) {
  for (int row = 0; row < kPanelRows; ++row) {
    for (int k = 0; k < kQuantBlock; k += 2) std::memcpy(out + k * kPanelRows + row * 2, rows[row].q + k, 2);
  }
}

// `header`: of the block's eight.
void PutScales(PackedKind kind, const QuantBlock* rows, uint8_t* header, uint8_t* scales) {
  for (int row = 0; row < kPanelRows; ++row) {
    const QuantBlock& block = rows[row];
    if (TraitsOf(kind).header_bytes == 0) {
      std::memcpy(scales + row * 2, &block.scale, 2);
      if (HasMinimum(kind)) std::memcpy(scales + 32 + row * 2, &block.minimum, 2);
      continue;
    }
    std::memcpy(header + row * 2, &block.scale, 2);
    scales[row] = block.part_scale[0];
    scales[16 + row] = kind == PackedKind::kQ6K ? block.part_scale[1] : block.part_minimum;
    if (kind != PackedKind::kQ6K) std::memcpy(header + 32 + row * 2, &block.minimum, 2);
  }
}

void PackPlain(int bytes, std::span<const SourceRow, kPanelRows> rows, int64_t columns, uint8_t* panel) {
  for (int row = 0; row < kPanelRows; ++row) {
    if (rows[row].data == nullptr) continue;
    for (int64_t k = 0; k < columns; ++k) {
      std::memcpy(panel + (k * kPanelRows + row) * bytes, rows[row].data + k * bytes, bytes);
    }
  }
}

struct ScaleAndMinimum {
  float scale;
  float minimum;
};
ScaleAndMinimum ScaleOf(PackedKind kind, const uint8_t* header, const uint8_t* scales, int row, int part) {
  if (TraitsOf(kind).header_bytes == 0) {
    const float scale = HalfToFloat(LoadHalf(scales + row * 2));
    if (HasMinimum(kind)) return {scale, HalfToFloat(LoadHalf(scales + 32 + row * 2))};
    return {scale, scale * (kind == PackedKind::kQ4 ? -8.0f : kind == PackedKind::kQ5 ? -16.0f : 0.0f)};
  }
  const float super = HalfToFloat(LoadHalf(header + row * 2));
  if (kind == PackedKind::kQ6K) {
    const float scale = super * static_cast<float>(static_cast<int8_t>(scales[part * 16 + row]));
    return {scale, -32.0f * scale};
  }
  const float super_minimum = HalfToFloat(LoadHalf(header + 32 + row * 2));
  return {super * static_cast<float>(scales[row]), super_minimum * static_cast<float>(scales[16 + row])};
}

int WeightOf(int bits, const uint8_t* block, int row, int k) {
  if (bits == 8) return static_cast<int8_t>(block[(k / 2) * 32 + row * 2 + k % 2]);
  const int step = k / 4;
  const int lane = row % 8 * 4 + k % 4;
  const int half = row / 8;
  const int low = block[step * kLanes + lane] >> (4 * half) & 15;
  if (bits == 5) return low | (block[256 + half * kLanes + lane] >> step & 1) << 4;
  if (bits == 6) return low | (block[256 + (step / 4 * 2 + half) * kLanes + lane] >> (step % 4 * 2) & 3) << 4;
  return low;
}

}  // namespace

std::optional<PackedKind> PackedKindOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return PackedKind::kF32;
    case DType::kF16:
      return PackedKind::kF16;
    case DType::kBF16:
      return PackedKind::kBF16;
    case DType::kQ8_0:
      return PackedKind::kQ8;
    case DType::kQ4_0:
      return PackedKind::kQ4;
    case DType::kQ4_1:
      return PackedKind::kQ4Min;
    case DType::kQ5_0:
      return PackedKind::kQ5;
    case DType::kQ5_1:
      return PackedKind::kQ5Min;
    case DType::kQ4_K:
      return PackedKind::kQ4K;
    case DType::kQ5_K:
      return PackedKind::kQ5K;
    case DType::kQ6_K:
      return PackedKind::kQ6K;
    default:
      return std::nullopt;
  }
}

int64_t PanelBytes(PackedKind kind, int64_t columns) {
  const PackedTraits traits = TraitsOf(kind);
  if (traits.bits == 0) return columns * kPanelRows * traits.weight_bytes;
  const int64_t blocks = columns / kQuantBlock;
  return blocks * traits.block_bytes + blocks / kHeaderBlocks * traits.header_bytes;
}

void PackPanel(DType dtype, std::span<const SourceRow, kPanelRows> rows, int64_t columns, uint8_t* panel) {
  const PackedKind kind = *PackedKindOf(dtype);
  const PackedTraits traits = TraitsOf(kind);
  std::memset(panel, 0, PanelBytes(kind, columns));
  if (traits.bits == 0) return PackPlain(traits.weight_bytes, rows, columns, panel);
  QuantBlock blocks[kPanelRows] = {};
  for (int64_t b = 0; b < columns / kQuantBlock; ++b) {
    for (int row = 0; row < kPanelRows; ++row) {
      if (rows[row].data != nullptr) blocks[row] = DecodeQuantBlock(dtype, rows[row].data, b);
    }
    uint8_t* out = panel + BlockOffset(traits, b);
    uint8_t* header = panel + BlockOffset(traits, b / kHeaderBlocks * kHeaderBlocks) - traits.header_bytes;
    traits.bits == 8 ? PutBytes(blocks, out) : PutNibbles(blocks, traits.bits, out);
    PutScales(kind, blocks, header, out + traits.weight_bytes);
  }
}

void DequantizePanelColumn(PackedKind kind, const uint8_t* panel, int64_t k, float* out) {
  const PackedTraits traits = TraitsOf(kind);
  const int64_t b = k / kQuantBlock;
  const int in_block = static_cast<int>(k % kQuantBlock);
  const uint8_t* block = panel + BlockOffset(traits, b);
  const uint8_t* header = panel + BlockOffset(traits, b / kHeaderBlocks * kHeaderBlocks) - traits.header_bytes;
  for (int row = 0; row < kPanelRows; ++row) {
    const auto [scale, minimum] =
        ScaleOf(kind, header, block + traits.weight_bytes, row, in_block / (kQuantBlock / traits.parts));
    out[row] = scale * static_cast<float>(WeightOf(traits.bits, block, row, in_block)) + minimum;
  }
}

void DequantizePanelRow(PackedKind kind, const uint8_t* panel, int row, int64_t columns, float* out) {
  const PackedTraits traits = TraitsOf(kind);
  if (traits.bits == 0) {
    for (int64_t k = 0; k < columns; ++k) {
      const uint8_t* element = panel + (k * kPanelRows + row) * traits.weight_bytes;
      if (kind == PackedKind::kF32) {
        std::memcpy(out + k, element, 4);
      } else {
        out[k] = kind == PackedKind::kF16 ? HalfToFloat(LoadHalf(element)) : Bf16ToFloat(LoadHalf(element));
      }
    }
    return;
  }
  const int part_columns = kQuantBlock / traits.parts;
  for (int64_t first = 0; first < columns; first += part_columns) {
    const int64_t b = first / kQuantBlock;
    const uint8_t* block = panel + BlockOffset(traits, b);
    const uint8_t* header = panel + BlockOffset(traits, b / kHeaderBlocks * kHeaderBlocks) - traits.header_bytes;
    const int in_block = static_cast<int>(first % kQuantBlock);
    const auto [scale, minimum] = ScaleOf(kind, header, block + traits.weight_bytes, row, in_block / part_columns);
    for (int k = 0; k < part_columns; ++k) {
      out[first + k] = scale * static_cast<float>(WeightOf(traits.bits, block, row, in_block + k)) + minimum;
    }
  }
}

}  // namespace baton::cpu

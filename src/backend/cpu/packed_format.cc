#include "backend/cpu/packed_format.h"

#include <cstring>

#include "backend/cpu/float16.h"

namespace baton::cpu {
namespace {

// One 32-weight block of any block-quantized GGUF type: weight = scale × q + minimum.
struct Block {
  int8_t q[kQuantBlock] = {};  // 0..15, 0..31 or -128..127
  uint16_t scale = 0;          // F16 bits
  uint16_t minimum = 0;        // F16 bits
};

uint16_t LoadHalf(const uint8_t* data) {
  uint16_t bits;
  std::memcpy(&bits, data, 2);
  return bits;
}

// GGUF keeps weight i in the low nibble of byte i, and weight i + 16 in the high one; fifth bits follow that order.
void DecodeNibbles(const uint8_t* nibbles, Block& block) {
  for (int i = 0; i < 16; ++i) {
    block.q[i] = static_cast<int8_t>(nibbles[i] & 15);
    block.q[i + 16] = static_cast<int8_t>(nibbles[i] >> 4);
  }
}
void AddFifthBits(const uint8_t* bits, Block& block) {
  uint32_t word;
  std::memcpy(&word, bits, 4);
  for (int i = 0; i < kQuantBlock; ++i) block.q[i] = static_cast<int8_t>(block.q[i] | (((word >> i) & 1u) << 4));
}

Block DecodeBlock(DType dtype, const uint8_t* data) {
  Block block;
  block.scale = LoadHalf(data);
  switch (dtype) {
    case DType::kQ4_0:
      DecodeNibbles(data + 2, block);
      break;
    case DType::kQ4_1:
      block.minimum = LoadHalf(data + 2);
      DecodeNibbles(data + 4, block);
      break;
    case DType::kQ5_0:
      DecodeNibbles(data + 6, block);
      AddFifthBits(data + 2, block);
      for (int8_t& q : block.q) q = static_cast<int8_t>(q - 16);
      break;
    case DType::kQ5_1:
      block.minimum = LoadHalf(data + 2);
      DecodeNibbles(data + 8, block);
      AddFifthBits(data + 4, block);
      break;
    default:  // kQ8_0
      std::memcpy(block.q, data + 2, kQuantBlock);
  }
  return block;
}

bool HasMinimum(PackedKind kind) { return kind == PackedKind::kQ4Min || kind == PackedKind::kQ8Min; }
bool IsNibbles(PackedKind kind) { return kind == PackedKind::kQ4 || kind == PackedKind::kQ4Min; }
bool IsPlain(PackedKind kind) { return kind <= PackedKind::kBF16; }
int PlainBytes(PackedKind kind) { return kind == PackedKind::kF32 ? 4 : 2; }
int WeightBytes(PackedKind kind) { return (IsNibbles(kind) ? 16 : 32) * kPanelRows; }
int BlockBytes(PackedKind kind) { return WeightBytes(kind) + kPanelRows * (HasMinimum(kind) ? 4 : 2); }

void PutBlock(PackedKind kind, const Block& block, int row, uint8_t* out) {
  for (int k = 0; k < kQuantBlock; ++k) {
    if (IsNibbles(kind)) {
      uint8_t& byte = out[(k / 4) * 32 + (row % 8) * 4 + k % 4];
      byte = static_cast<uint8_t>(byte | (row < 8 ? block.q[k] : block.q[k] << 4));
    } else {
      out[(k / 2) * 32 + row * 2 + k % 2] = static_cast<uint8_t>(block.q[k]);
    }
  }
  uint8_t* scales = out + WeightBytes(kind);
  std::memcpy(scales + row * 2, &block.scale, 2);
  if (HasMinimum(kind)) std::memcpy(scales + kPanelRows * 2 + row * 2, &block.minimum, 2);
}

void PackPlain(PackedKind kind, std::span<const SourceRow, kPanelRows> rows, int64_t columns, uint8_t* panel) {
  const int bytes = PlainBytes(kind);
  for (int row = 0; row < kPanelRows; ++row) {
    if (rows[row].data == nullptr) continue;
    for (int64_t k = 0; k < columns; ++k) {
      std::memcpy(panel + (k * kPanelRows + row) * bytes, rows[row].data + k * bytes, bytes);
    }
  }
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
    case DType::kQ4_0:
      return PackedKind::kQ4;
    case DType::kQ4_1:
      return PackedKind::kQ4Min;
    case DType::kQ5_0:
    case DType::kQ8_0:
      return PackedKind::kQ8;
    case DType::kQ5_1:
      return PackedKind::kQ8Min;
    default:
      return std::nullopt;
  }
}

InputKind InputKindOf(PackedKind kind) {
  if (IsPlain(kind)) return InputKind::kFloat;
  return IsNibbles(kind) ? InputKind::kInt8 : InputKind::kInt16;
}

int64_t PanelBytes(PackedKind kind, int64_t columns) {
  if (IsPlain(kind)) return columns * kPanelRows * PlainBytes(kind);
  return columns / kQuantBlock * BlockBytes(kind);
}

void PackPanel(DType dtype, std::span<const SourceRow, kPanelRows> rows, int64_t columns, uint8_t* panel) {
  const PackedKind kind = *PackedKindOf(dtype);
  std::memset(panel, 0, PanelBytes(kind, columns));
  if (IsPlain(kind)) return PackPlain(kind, rows, columns, panel);
  const int source_bytes = TraitsOf(dtype).block_bytes;
  for (int64_t b = 0; b < columns / kQuantBlock; ++b) {
    for (int row = 0; row < kPanelRows; ++row) {
      if (rows[row].data == nullptr) continue;
      PutBlock(kind, DecodeBlock(dtype, rows[row].data + b * source_bytes), row, panel + b * BlockBytes(kind));
    }
  }
}

void DequantizePanelRow(PackedKind kind, const uint8_t* panel, int row, int64_t columns, float* out) {
  if (IsPlain(kind)) {
    const int bytes = PlainBytes(kind);
    for (int64_t k = 0; k < columns; ++k) {
      const uint8_t* element = panel + (k * kPanelRows + row) * bytes;
      if (kind == PackedKind::kF32) {
        std::memcpy(out + k, element, 4);
      } else {
        out[k] = kind == PackedKind::kF16 ? HalfToFloat(LoadHalf(element)) : Bf16ToFloat(LoadHalf(element));
      }
    }
    return;
  }
  for (int64_t k = 0; k < columns; ++k) {
    const uint8_t* block = panel + k / kQuantBlock * BlockBytes(kind);
    const uint8_t* scales = block + WeightBytes(kind);
    const int i = static_cast<int>(k % kQuantBlock);
    const float scale = HalfToFloat(LoadHalf(scales + row * 2));
    const float minimum = HasMinimum(kind)          ? HalfToFloat(LoadHalf(scales + kPanelRows * 2 + row * 2))
                          : kind == PackedKind::kQ4 ? -8.0f * scale
                                                    : 0.0f;
    int q;
    if (IsNibbles(kind)) {
      const uint8_t byte = block[(i / 4) * 32 + (row % 8) * 4 + i % 4];
      q = row < 8 ? byte & 15 : byte >> 4;
    } else {
      q = static_cast<int8_t>(block[(i / 2) * 32 + row * 2 + i % 2]);
    }
    out[k] = scale * static_cast<float>(q) + minimum;
  }
}

}  // namespace baton::cpu

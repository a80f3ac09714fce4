// How the CPU backend keeps a weight matrix in memory: panels of 16 output rows, so that one load serves 16 rows and no
// sum has to be taken across a vector. A panel covers all columns (k) of its 16 rows.
//
//   plain types    [k][16 rows] in the stored type
//   others         blocks of 32 columns, each with its weights and then its scales; kQ4K, kQ5K and kQ6K have a header
//                  before every 8 blocks. weight = scale × q + minimum.
//
// Weights of a block, 4 to 6 bits: [8][8 rows][4 k] bytes, low nibble rows 0-7, high nibble rows 8-15. Then
//   5 bits         [2 × 8 rows][8 rows][4 k] bytes, whose bit i is the fifth bit of the i-th four columns
//   6 bits         [2 × 16 k][2 × 8 rows][8 rows][4 k] bytes: two bits for each four columns, lowest first
// 8 bits: [16][16 rows][2 k] int8.
//
// Scales of a block, [16 rows] each:
//   kQ4, kQ5, kQ8    F16 scale; minimum = −8 × scale, −16 × scale, 0
//   kQ4Min, kQ5Min   F16 scale; F16 minimum
//   kQ4K, kQ5K       uint8 scale, to be multiplied by the header's F16 scale; uint8 minimum, by the header's F16
//   minimum kQ6K             int8 scale of the first 16 columns, and of the others, times the header's F16; minimum −32
//   × scale
//
// These are GGUF's types in another order (Q8_0 → kQ8, Q4_1 → kQ4Min, ...): nothing is rounded again.
//
// Threading: pure functions; different panels may be packed at once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/tensor.h"

namespace baton::cpu {

inline constexpr int kPanelRows = 16;
inline constexpr int kQuantBlock = 32;  // columns that share one scale (kQ6K: two)

enum class PackedKind : uint8_t { kF32, kF16, kBF16, kQ8, kQ4, kQ4Min, kQ5, kQ5Min, kQ4K, kQ5K, kQ6K };
inline constexpr int kNumPackedKinds = 11;

// How the input of a product is prepared: as it is, or quantized by blocks (see activation_tiles.h).
enum class InputKind : uint8_t { kFloat, kInt8, kInt8Halves, kInt16 };
inline constexpr int kNumInputKinds = 4;

struct PackedTraits {
  InputKind input;
  int bits;          // of a weight; 0: a plain type
  int parts;         // of 32 columns, each with a scale
  int weight_bytes;  // of a block; of one element of a plain type
  int block_bytes;
  int header_bytes;  // before every kHeaderBlocks blocks
};
inline constexpr int kHeaderBlocks = 8;

constexpr PackedTraits TraitsOf(PackedKind kind) {
  switch (kind) {
    case PackedKind::kF32:
      return {InputKind::kFloat, 0, 1, 4, 0, 0};
    case PackedKind::kF16:
    case PackedKind::kBF16:
      return {InputKind::kFloat, 0, 1, 2, 0, 0};
    case PackedKind::kQ8:
      return {InputKind::kInt16, 8, 1, 512, 544, 0};
    case PackedKind::kQ4:
      return {InputKind::kInt8, 4, 1, 256, 288, 0};
    case PackedKind::kQ4Min:
      return {InputKind::kInt8, 4, 1, 256, 320, 0};
    case PackedKind::kQ5:
      return {InputKind::kInt8, 5, 1, 320, 352, 0};
    case PackedKind::kQ5Min:
      return {InputKind::kInt8, 5, 1, 320, 384, 0};
    case PackedKind::kQ4K:
      return {InputKind::kInt8, 4, 1, 256, 288, 64};
    case PackedKind::kQ5K:
      return {InputKind::kInt8, 5, 1, 320, 352, 64};
    case PackedKind::kQ6K:
      return {InputKind::kInt8Halves, 6, 2, 384, 416, 32};
  }
  return {};
}

// Where block `block` of a panel begins.
constexpr int64_t BlockOffset(const PackedTraits& traits, int64_t block) {
  return block * traits.block_bytes + (block / kHeaderBlocks + 1) * traits.header_bytes;
}

std::optional<PackedKind> PackedKindOf(DType dtype);
constexpr InputKind InputKindOf(PackedKind kind) { return TraitsOf(kind).input; }
int64_t PanelBytes(PackedKind kind, int64_t columns);

// One encoded row of a tensor.
struct SourceRow {
  const uint8_t* data = nullptr;  // null: a row of padding, packed as zeros
};
// Packs 16 rows of `columns` weights of `dtype` into `panel` (PanelBytes).
void PackPanel(DType dtype, std::span<const SourceRow, kPanelRows> rows, int64_t columns, uint8_t* panel);
// The 16 weights of column `k` of a panel of a block type, as floats.
void DequantizePanelColumn(PackedKind kind, const uint8_t* panel, int64_t k, float* out);
// Writes row `row` of a panel as floats.
void DequantizePanelRow(PackedKind kind, const uint8_t* panel, int row, int64_t columns, float* out);

}  // namespace baton::cpu

// How the input of a block-quantized product lies in memory: columns (tokens) in tiles, so that one broadcast of a few
// neighbouring values of a column serves 8 or 16 rows of a panel.
//
//   kInt8        for each 32 values: [8][width][4] int8, then float scale[width], float scaled_sum[width]
//   kInt8Halves  as kInt8, with scaled_sum[2][width]: of the first 16 values and of the others
//   kInt16       for each 32 values: [16][width][2] int16, then the same floats as kInt8
//
// scale = max|x| / InputRange and scaled_sum = scale × Σq, which multiplies the weight block's minimum.
// Of int8 input the largest values of a column are taken out first (Outlier) and multiplied as floats: one of them
// alone would cost its 31 neighbours most of their bits. Each group of 24 blocks gives up one value for each nine
// blocks, the largest of the block that has the largest now; ties go to the first.
//
// Tiles follow one another, so the tile that begins at column c lies at c × (k / 32) × ColumnBlockBytes.
// Integer sums are exact, so how columns are tiled changes no result.
#pragma once

#include <cstdint>

#include "backend/cpu/packed_format.h"

namespace baton::cpu {

inline constexpr int kMaxTileWidth = 8;
inline constexpr int kColumnGroup = 256;  // columns whose quantized input should stay in a core's cache

// Of quantized input. 32 products of int16 with int8 weights fit 32 bits.
constexpr float InputRange(InputKind kind) { return kind == InputKind::kInt16 ? 32767.0f : 127.0f; }
constexpr int ColumnValueBytes(InputKind kind) { return kind == InputKind::kInt16 ? 64 : 32; }
constexpr int ColumnBlockBytes(InputKind kind) {
  return ColumnValueBytes(kind) + (kind == InputKind::kInt8Halves ? 12 : 8);
}

struct Outlier {
  int32_t column;  // of the weight
  float value;
};
inline constexpr int kOutlierGroup = 24;  // blocks
constexpr int OutliersOfGroup(int64_t blocks) { return static_cast<int>((blocks + 8) / 9); }
// Of one column (token) of `k` values.
constexpr int OutliersOf(InputKind kind, int64_t k) {
  if (kind != InputKind::kInt8 && kind != InputKind::kInt8Halves) return 0;
  const int64_t blocks = k / kQuantBlock;
  return static_cast<int>(blocks / kOutlierGroup * OutliersOfGroup(kOutlierGroup)) +
         OutliersOfGroup(blocks % kOutlierGroup);
}

// Width of the tile that begins at `column` of a group of `columns` (at most kColumnGroup). `many`: of the tiles of
// large groups, for the kernels that read unpacked panels; divides kMaxTileWidth.
constexpr int TileWidth(int many, int columns, int column) {
  const int left = columns - column;
  if (columns <= kMaxTileWidth) return columns;  // one tile, read while unpacking
  return left < many ? left : many;
}

}  // namespace baton::cpu

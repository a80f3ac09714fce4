// How the input of a block-quantized product lies in memory: columns (tokens) in tiles, so that one broadcast of a few
// neighbouring values of a column serves 8 rows of a panel.
//
//   kInt8   for each 32 values: [8][width][4] int8, then float scale[width], float scaled_sum[width]
//   kInt16  for each 32 values: [16][width][2] int16 (of int8 range), then the same floats
//
// scale = max|x| / 127 and scaled_sum = scale × Σq, which multiplies the weight block's minimum.
// Tiles follow one another, so the tile that begins at column c lies at c × (k / 32) × ColumnBlockBytes.
// Integer sums are exact, so how columns are tiled changes no result.
#pragma once

#include <cstdint>

#include "backend/cpu/packed_format.h"

namespace baton::cpu {

inline constexpr int kMaxTileWidth = 8;
inline constexpr int kColumnGroup = 256;  // columns whose quantized input should stay in a core's cache

constexpr int ColumnBlockBytes(InputKind kind) { return kind == InputKind::kInt8 ? 40 : 72; }

// Width of the tile that begins at `column` of a group of `columns` (at most kColumnGroup).
constexpr int TileWidth(InputKind kind, int columns, int column) {
  const int left = columns - column;
  if (kind == InputKind::kInt16) return left < 8 ? left : 8;
  if (columns <= 8) return columns;  // one tile, read while unpacking
  return left < 4 ? left : 4;        // the kernel for unpacked panels
}

}  // namespace baton::cpu

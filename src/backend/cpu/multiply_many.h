// Products with more columns than can be worked on while a panel is unpacked: some blocks of a panel are unpacked to
// the cache, then multiplied with all columns in tiles, then the next. The order of things for every vector path; what
// it calls is theirs.
#pragma once

#include "backend/cpu/kernels.h"

namespace baton::cpu {

struct UnpackedProduct {
  // `first` begins at a header, where the kind has them.
  using Unpack = void (*)(const uint8_t* first, int64_t blocks, uint8_t* out);
  // 16 rows × as many columns as its place in `multiply_tile` says; continues the sums in `out` unless these are the
  // `first` blocks.
  using MultiplyTile = void (*)(const uint8_t* block, int64_t blocks, const uint8_t* tile, float* out, int64_t stride,
                                bool first);
  PackedTraits traits;
  int panel_blocks;  // unpacked at once, to at most kMultiplyScratch bytes
  int tile_width;    // columns
  Unpack unpack;
  const MultiplyTile* multiply_tile;  // [tile_width + 1]
};

void MultiplyMany(const UnpackedProduct& product, const MultiplyArgs& args);

}  // namespace baton::cpu

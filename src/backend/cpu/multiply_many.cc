#include "backend/cpu/multiply_many.h"

#include <algorithm>

namespace baton::cpu {

void MultiplyMany(const UnpackedProduct& product, const MultiplyArgs& args) {
  const PackedTraits& traits = product.traits;
  const int64_t column_bytes = ColumnBlockBytes(traits.input);
  const int64_t blocks = args.k / kQuantBlock;
  for (int64_t b = 0; b < blocks; b += product.panel_blocks) {
    const int64_t count = std::min<int64_t>(blocks - b, product.panel_blocks);
    product.unpack(args.panel + BlockOffset(traits, b) - traits.header_bytes, count, args.scratch);
    int width;
    for (int c = 0; c < args.columns; c += width) {
      width = TileWidth(product.tile_width, args.columns, c);
      product.multiply_tile[width](args.scratch, count, args.tiles + (c * blocks + b * width) * column_bytes,
                                   args.out + c * args.out_stride, args.out_stride, b == 0);
    }
  }
}

}  // namespace baton::cpu

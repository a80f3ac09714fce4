#include "backend/cpu/multiplier.h"

#include <algorithm>

namespace baton::cpu {
namespace {

constexpr int kQuantizeColumns = 16;  // handed out together: a multiple of every tile's width in large groups
constexpr int kMaxRanges = 128;

// Splits `total` into ranges that shrink, so that threads end together and take few of them: a range is what is left,
// divided by twice the threads.
struct ShrinkingRanges {
  ShrinkingRanges(int64_t total, int threads) {
    int64_t first = 0;
    while (first < total && count < kMaxRanges - 1) {
      begin[count++] = first;
      first += std::max<int64_t>(1, (total - first) / (2 * threads));
    }
    if (first < total) begin[count++] = first;
    begin[count] = total;
  }
  int64_t begin[kMaxRanges + 1];
  int count = 0;
};

}  // namespace

Multiplier::Multiplier(const Kernels& kernels, ThreadPool& pool)
    : kernels_(kernels), pool_(pool), scratch_(pool.threads()) {}

void Multiplier::QuantizeInput(const Product& product, InputKind kind) {
  std::vector<uint8_t>& tiles = tiles_[static_cast<int>(kind)];
  const int many = kernels_.tile_width[static_cast<int>(kind)];
  const int64_t k = product.weight->columns();
  const int64_t column_bytes = k / kQuantBlock * ColumnBlockBytes(kind);
  std::vector<Outlier>& outliers = outliers_[static_cast<int>(kind)];
  const int64_t each = OutliersOf(kind, k);
  if (static_cast<int64_t>(outliers.size()) < product.tokens * each) outliers.resize(product.tokens * each);
  if (static_cast<int64_t>(tiles.size()) < product.tokens * column_bytes) tiles.resize(product.tokens * column_bytes);
  pool_.ParallelFor((product.tokens + kQuantizeColumns - 1) / kQuantizeColumns, [&](int64_t unit, int) {
    const int64_t begin = unit * kQuantizeColumns;
    const int64_t end = std::min<int64_t>(begin + kQuantizeColumns, product.tokens);
    const int64_t group = begin / kColumnGroup * kColumnGroup;
    const int columns = static_cast<int>(std::min<int64_t>(kColumnGroup, product.tokens - group));
    for (int64_t column = begin; column < end;) {
      const int width = TileWidth(many, columns, static_cast<int>(column - group));
      kernels_.quantize_tile(kind, product.x + column * product.x_stride, product.x_stride, width, k,
                             tiles.data() + column * column_bytes, outliers.data() + column * each);
      column += width;
    }
  });
}

void Multiplier::MultiplyPanel(const Product& product, int64_t panel, int64_t first_column, int thread) {
  const PackedWeight::Panel source = product.weight->PanelAt(panel);
  const InputKind input = InputKindOf(source.kind);
  const int64_t column_bytes = product.weight->columns() / kQuantBlock * ColumnBlockBytes(input);
  const uint8_t* tiles = tiles_[static_cast<int>(input)].data();
  Scratch& scratch = scratch_[thread];
  float* out = product.out + first_column * product.out_stride + source.first_row;
  const bool whole = source.rows == kPanelRows;
  MultiplyArgs args;
  args.panel = source.data;
  args.k = product.weight->columns();
  args.floats = product.x + first_column * product.x_stride;
  args.float_stride = product.x_stride;
  args.tiles = input == InputKind::kFloat ? nullptr : tiles + first_column * column_bytes;
  args.outliers_each = OutliersOf(input, args.k);
  args.outliers = outliers_[static_cast<int>(input)].data() + first_column * args.outliers_each;
  args.columns = static_cast<int>(std::min<int64_t>(kColumnGroup, product.tokens - first_column));
  args.out = whole ? out : scratch.panel;
  args.out_stride = whole ? product.out_stride : kPanelRows;
  args.scratch = scratch.bytes;
  kernels_.multiply[static_cast<int>(source.kind)](args);
  const float* bias = product.weight->bias();
  if (whole && bias == nullptr) return;
  for (int c = 0; c < args.columns; ++c) {
    for (int row = 0; row < source.rows; ++row) {
      const float sum = args.out[c * args.out_stride + row];
      out[c * product.out_stride + row] = bias == nullptr ? sum : sum + bias[source.first_row + row];
    }
  }
}

void Multiplier::Multiply(const PackedWeight& weight, const float* x, int64_t x_stride, int64_t tokens, float* out,
                          int64_t out_stride) {
  if (tokens == 0) return;
  const Product product = {&weight, x, x_stride, tokens, out, out_stride};
  for (InputKind kind : {InputKind::kInt8, InputKind::kInt8Halves, InputKind::kInt16}) {
    if (weight.Needs(kind)) QuantizeInput(product, kind);
  }
  const int64_t groups = (tokens + kColumnGroup - 1) / kColumnGroup;
  const ShrinkingRanges ranges(groups * weight.panels(), pool_.threads());
  pool_.ParallelFor(ranges.count, [&](int64_t unit, int thread) {
    for (int64_t i = ranges.begin[unit]; i < ranges.begin[unit + 1]; ++i) {
      MultiplyPanel(product, i % weight.panels(), i / weight.panels() * kColumnGroup, thread);
    }
  });
}

}  // namespace baton::cpu

#include "engine/expand_weight.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "model/dequantize.h"
#include "model/float_formats.h"

namespace baton {
namespace {

constexpr int64_t kRowsAtOnce = 64;  // what a thread takes

absl::StatusOr<std::vector<float>> ReadScales(const TensorView& scale, int64_t rows) {
  if (scale.data == nullptr) return std::vector<float>(rows, 1.0f);
  const int64_t count = scale.bytes / TraitsOf(scale.dtype).block_bytes;
  if (count != 1 && count != rows) {
    return InvalidArgument("expected FP8 weight scales for the tensor or for each of its ", rows, " rows, found ",
                           count);
  }
  std::vector<float> scales(count);
  Dequantize(scale.dtype, scale.data, count, scales.data());
  scales.resize(rows, scales[0]);
  return scales;
}

// Calls work(first, end) for pieces of [0, rows), on all cores.
template <typename Work>
void InPieces(int64_t rows, const Work& work) {
  std::atomic<int64_t> next = 0;
  const auto run = [&] {
    for (int64_t at = next.fetch_add(kRowsAtOnce); at < rows; at = next.fetch_add(kRowsAtOnce)) {
      work(at, std::min(at + kRowsAtOnce, rows));
    }
  };
  const auto threads = std::min<int64_t>(std::max(1u, std::thread::hardware_concurrency()), rows / kRowsAtOnce);
  std::vector<std::thread> helpers;
  for (int64_t i = 1; i < threads; ++i) helpers.emplace_back(run);
  run();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace

bool NeedsExpansion(const TensorView& weight, std::span<const DType> types) {
  return weight.data != nullptr && std::ranges::find(types, weight.dtype) == types.end();
}

absl::StatusOr<ExpandedWeight> ExpandToBf16(const LinearSource& source) {
  const TensorView& weight = source.weight;
  const int64_t rows = weight.rows();
  const int64_t columns = weight.columns();
  const int64_t row_bytes = DTypeRowBytes(weight.dtype, columns);
  if (weight.bytes < rows * row_bytes) {
    return InvalidArgument("a weight of ", rows, " × ", columns, " has only ", weight.bytes, " bytes");
  }
  BATON_ASSIGN_OR_RETURN(const std::vector<float> scales, ReadScales(source.scale, rows));
  ExpandedWeight out{.elements = std::make_unique_for_overwrite<uint16_t[]>(rows * columns), .source = source};
  InPieces(rows, [&](int64_t first, int64_t end) {
    std::vector<float> values(columns);
    for (int64_t row = first; row < end; ++row) {
      Dequantize(weight.dtype, weight.data + row * row_bytes, columns, values.data());
      uint16_t* to = out.elements.get() + row * columns;
      for (int64_t i = 0; i < columns; ++i) to[i] = FloatToBfloat16(values[i] * scales[row]);
    }
  });
  out.source.weight = {.dtype = DType::kBF16,
                       .shape = weight.shape,
                       .data = reinterpret_cast<const uint8_t*>(out.elements.get()),
                       .bytes = rows * columns * 2};
  out.source.scale = {};
  out.source.input_scale = 0;
  return out;
}

int64_t ExpandedBytes(const Model& model, std::span<const DType> types) {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : model.tensors()) {
    if (name == "lm_head.weight" && model.config().tie_embeddings) continue;
    const bool expanded = tensor.shape.size() == 2 && NeedsExpansion(tensor, types);
    bytes += expanded ? tensor.rows() * tensor.columns() * 2 : tensor.bytes;
  }
  return bytes;
}

}  // namespace baton

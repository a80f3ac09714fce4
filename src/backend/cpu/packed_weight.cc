#include "backend/cpu/packed_weight.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/float16.h"

namespace baton::cpu {
namespace {

absl::Status CheckSource(const TensorView& weight, int64_t columns) {
  const DTypeTraits traits = TraitsOf(weight.dtype);
  if (!PackedKindOf(weight.dtype).has_value()) {
    return Unimplemented("the CPU backend has no kernel for weights of type ", traits.name,
                         ": use F32, F16, BF16 or a block type of GGUF");
  }
  if (weight.shape.size() != 2 || weight.columns() != columns || weight.columns() % traits.block_elements != 0) {
    return InvalidArgument("a linear weight: expected two dimensions and ", columns, " columns in blocks of ",
                           traits.block_elements, ", found ", weight.shape.size(), " dimensions and ", weight.columns(),
                           " columns");
  }
  const int64_t bytes = weight.rows() * DTypeRowBytes(weight.dtype, columns);
  if (weight.bytes != bytes) {
    return InvalidArgument("a linear weight of ", weight.rows(), " × ", columns, " ", traits.name, ": expected ", bytes,
                           " bytes, found ", weight.bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<float>> ReadVector(const TensorView& source) {
  const int64_t size = source.columns();
  std::vector<float> values(size);
  const bool f32 = source.dtype == DType::kF32;
  if (!f32 && source.dtype != DType::kF16 && source.dtype != DType::kBF16) {
    return Unimplemented("a vector of type ", TraitsOf(source.dtype).name, ": expected F32, F16 or BF16");
  }
  if (source.rows() != 1 || source.bytes != size * (f32 ? 4 : 2)) {
    return InvalidArgument("a vector: expected one row of ", size, " values, found ", source.bytes, " bytes");
  }
  if (f32) {
    std::memcpy(values.data(), source.data, source.bytes);
    return values;
  }
  for (int64_t i = 0; i < size; ++i) {
    uint16_t bits;
    std::memcpy(&bits, source.data + i * 2, 2);
    values[i] = source.dtype == DType::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits);
  }
  return values;
}

absl::StatusOr<std::unique_ptr<PackedWeight>> PackedWeight::Pack(std::span<const LinearSource> sources, Arena& arena,
                                                                 ThreadPool& pool) {
  if (sources.empty()) return InvalidArgument("a linear weight needs at least one source");
  auto weight = std::make_unique<PackedWeight>();
  weight->columns_ = sources[0].weight.columns();
  for (const LinearSource& source : sources) {
    BATON_RETURN_IF_ERROR(CheckSource(source.weight, weight->columns_));
  }
  // Neighbours of one type share panels, so that only a part's end is padded.
  for (size_t first = 0; first < sources.size();) {
    size_t end = first + 1;
    while (end < sources.size() && sources[end].weight.dtype == sources[first].weight.dtype) ++end;
    BATON_RETURN_IF_ERROR(weight->AddPart(sources.subspan(first, end - first), arena, pool));
    first = end;
  }
  BATON_RETURN_IF_ERROR(weight->AddBias(sources));
  return weight;
}

absl::Status PackedWeight::AddPart(std::span<const LinearSource> sources, Arena& arena, ThreadPool& pool) {
  const DType dtype = sources[0].weight.dtype;
  Part part;
  part.kind = *PackedKindOf(dtype);
  part.first_row = rows_;
  part.first_panel = panels_;
  std::vector<SourceRow> rows;
  for (const LinearSource& source : sources) {
    const int64_t row_bytes = DTypeRowBytes(dtype, columns_);
    for (int64_t row = 0; row < source.weight.rows(); ++row) rows.push_back({source.weight.data + row * row_bytes});
  }
  part.rows = static_cast<int64_t>(rows.size());
  part.panels = (part.rows + kPanelRows - 1) / kPanelRows;
  part.panel_bytes = PanelBytes(part.kind, columns_);
  rows.resize(part.panels * kPanelRows);
  BATON_ASSIGN_OR_RETURN(uint8_t * data, arena.Allocate(part.panels * part.panel_bytes));
  pool.ParallelFor(part.panels, [&](int64_t panel, int) {
    PackPanel(dtype, std::span<const SourceRow, kPanelRows>(rows.data() + panel * kPanelRows, kPanelRows), columns_,
              data + panel * part.panel_bytes);
  });
  part.data = data;
  rows_ += part.rows;
  panels_ += part.panels;
  parts_.push_back(part);
  return absl::OkStatus();
}

absl::Status PackedWeight::AddBias(std::span<const LinearSource> sources) {
  if (std::ranges::all_of(sources, [](const LinearSource& source) { return source.bias.data == nullptr; })) {
    return absl::OkStatus();
  }
  for (const LinearSource& source : sources) {
    std::vector<float> bias(source.weight.rows());
    if (source.bias.data != nullptr) {
      BATON_ASSIGN_OR_RETURN(bias, ReadVector(source.bias));
      if (static_cast<int64_t>(bias.size()) != source.weight.rows()) {
        return InvalidArgument("a bias: expected ", source.weight.rows(), " values, found ", bias.size());
      }
    }
    bias_.insert(bias_.end(), bias.begin(), bias.end());
  }
  return absl::OkStatus();
}

bool PackedWeight::Needs(InputKind kind) const {
  return std::ranges::any_of(parts_, [&](const Part& part) { return InputKindOf(part.kind) == kind; });
}

PackedWeight::Panel PackedWeight::PanelAt(int64_t panel) const {
  size_t i = 0;
  while (panel >= parts_[i].first_panel + parts_[i].panels) ++i;
  const Part& part = parts_[i];
  const int64_t index = panel - part.first_panel;
  const int64_t left = part.rows - index * kPanelRows;
  return {part.kind, part.data + index * part.panel_bytes, part.first_row + index * kPanelRows,
          static_cast<int>(std::min<int64_t>(left, kPanelRows))};
}

void PackedWeight::DequantizeRow(int64_t row, float* out) const {
  size_t i = 0;
  while (row >= parts_[i].first_row + parts_[i].rows) ++i;
  const Part& part = parts_[i];
  const int64_t index = row - part.first_row;
  DequantizePanelRow(part.kind, part.data + index / kPanelRows * part.panel_bytes, static_cast<int>(index % kPanelRows),
                     columns_, out);
}

}  // namespace baton::cpu

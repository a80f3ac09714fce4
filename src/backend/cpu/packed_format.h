// How the CPU backend keeps a weight matrix in memory: panels of 16 output rows, so that one load serves 16 rows and no
// sum has to be taken across a vector. A panel covers all columns (k) of its 16 rows.
//
//   plain types    [k][16 rows] in the stored type
//   kQ4, kQ4Min    for each 32 columns: [8][8 rows][4 k] bytes, low nibble rows 0-7, high nibble rows 8-15;
//                  then F16 scale[16], and F16 minimum[16] with kQ4Min. Weight = scale × q + minimum (kQ4: −8 × scale).
//   kQ8, kQ8Min    for each 32 columns: [16][16 rows][2 k] int8; then F16 scale[16], and F16 minimum[16] with kQ8Min.
//
// GGUF's Q4_1 → kQ4Min, Q4_0 → kQ4, Q8_0 and Q5_0 → kQ8, Q5_1 → kQ8Min: nothing is rounded again.
//
// Threading: pure functions; different panels may be packed at once.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "core/tensor.h"

namespace baton::cpu {

inline constexpr int kPanelRows = 16;
inline constexpr int kQuantBlock = 32;  // columns that share one scale

enum class PackedKind : uint8_t { kF32, kF16, kBF16, kQ4, kQ4Min, kQ8, kQ8Min };
inline constexpr int kNumPackedKinds = 7;

// How the input of a product is prepared: as it is, as int8 or as int16 quantized by blocks (see activation_tiles.h).
enum class InputKind : uint8_t { kFloat, kInt8, kInt16 };

std::optional<PackedKind> PackedKindOf(DType dtype);
InputKind InputKindOf(PackedKind kind);
int64_t PanelBytes(PackedKind kind, int64_t columns);

// One encoded row of a tensor.
struct SourceRow {
  const uint8_t* data = nullptr;  // null: a row of padding, packed as zeros
};
// Packs 16 rows of `columns` weights of `dtype` into `panel` (PanelBytes).
void PackPanel(DType dtype, std::span<const SourceRow, kPanelRows> rows, int64_t columns, uint8_t* panel);
// Writes row `row` of a panel as floats.
void DequantizePanelRow(PackedKind kind, const uint8_t* panel, int row, int64_t columns, float* out);

}  // namespace baton::cpu

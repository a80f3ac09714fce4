// A linear weight as the CPU backend keeps it: one or more matrices stacked along their output rows, packed in panels.
//
// Threading: immutable once packed. Ownership: the panels belong to the backend's arena.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/arena.h"
#include "backend/cpu/packed_format.h"
#include "backend/cpu/thread_pool.h"

namespace baton::cpu {

class PackedWeight : public LinearWeight {
 public:
  // Rows of one type; the last panel may be padded.
  struct Part {
    PackedKind kind;
    int64_t first_row;  // of the stack
    int64_t rows;
    int64_t panels;
    int64_t first_panel;  // of the whole weight
    int64_t panel_bytes;
    const uint8_t* data;
  };
  // One panel and what of it is real.
  struct Panel {
    PackedKind kind;
    const uint8_t* data;
    int64_t first_row;
    int rows;  // 16, or fewer in a part's last panel
  };

  // InvalidArgument for shapes that do not fit one another, Unimplemented for types without a kernel.
  static absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(std::span<const LinearSource> sources, Arena& arena,
                                                            ThreadPool& pool);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  int64_t panels() const { return panels_; }
  const std::vector<Part>& parts() const { return parts_; }
  const float* bias() const { return bias_.empty() ? nullptr : bias_.data(); }  // [rows]
  bool Needs(InputKind kind) const;
  Panel PanelAt(int64_t panel) const;
  void DequantizeRow(int64_t row, float* out) const;  // [columns]

 private:
  absl::Status AddPart(std::span<const LinearSource> sources, Arena& arena, ThreadPool& pool);
  absl::Status AddBias(std::span<const LinearSource> sources);

  int64_t rows_ = 0;
  int64_t columns_ = 0;
  int64_t panels_ = 0;
  std::vector<Part> parts_;
  std::vector<float> bias_;
};

// F32, F16 or BF16 as floats.
absl::StatusOr<std::vector<float>> ReadVector(const TensorView& source);

}  // namespace baton::cpu

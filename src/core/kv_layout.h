// The layout of one KV block: [kv_head][layer][K,V][token][head_dim].
//
// A whole block is one contiguous range; so is the share of a tensor-parallel rank (a range of heads), and so is a
// group of layers of one head. Offsets here are the only place that knows this order.
#pragma once

#include <cstdint>
#include <string>

#include "core/tensor.h"

namespace baton {

struct KvLayout {
  int32_t num_kv_heads = 0;  // of this worker (a rank's share)
  int32_t num_layers = 0;
  int32_t block_size = 0;     // tokens
  int32_t head_dim = 0;       // elements
  DType dtype = DType::kF16;  // stored type of K and V

  bool operator==(const KvLayout&) const = default;

  // One token, one head, K or V. With kI8 four bytes that scale its elements follow them (backend/cpu/int8_row.h).
  int64_t row_bytes() const { return DTypeRowBytes(dtype, head_dim) + (dtype == DType::kI8 ? 4 : 0); }
  int64_t plane_bytes() const { return block_size * row_bytes(); }  // [token][head_dim]
  int64_t layer_bytes() const { return 2 * plane_bytes(); }         // [K,V][token][head_dim]
  int64_t head_bytes() const { return num_layers * layer_bytes(); }
  int64_t block_bytes() const { return num_kv_heads * head_bytes(); }
  int64_t token_bytes() const { return block_bytes() / block_size; }  // all layers and heads

  // Offset within a block of K (v = 0) or V (v = 1) of one head and layer.
  int64_t PlaneOffset(int32_t kv_head, int32_t layer, int32_t v) const {
    return kv_head * head_bytes() + layer * layer_bytes() + v * plane_bytes();
  }
  int32_t BlocksFor(int64_t tokens) const { return static_cast<int32_t>((tokens + block_size - 1) / block_size); }
};

}  // namespace baton

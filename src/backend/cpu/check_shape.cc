#include "backend/cpu/check_shape.h"

#include "backend/cpu/int8_row.h"

namespace baton::cpu {

absl::Status CheckShape(const ModelShape& shape, const KvLayout& kv, int32_t num_blocks) {
  if (shape.head_dim <= 0 || shape.head_dim % 8 != 0) {
    return Unimplemented("the CPU backend needs a head size that is a multiple of 8, found ", shape.head_dim);
  }
  if (shape.num_kv_heads <= 0 || shape.num_heads % shape.num_kv_heads != 0) {
    return InvalidArgument("expected query heads in groups for each KV head, found ", shape.num_heads, " and ",
                           shape.num_kv_heads);
  }
  if (static_cast<int32_t>(shape.rope_inverse_frequencies.size()) != shape.head_dim / 2) {
    return InvalidArgument("expected ", shape.head_dim / 2, " rotary frequencies, found ",
                           shape.rope_inverse_frequencies.size());
  }
  if (kv.dtype != DType::kF16 && kv.dtype != DType::kF32 && kv.dtype != DType::kI8) {
    return Unimplemented("the CPU backend keeps the KV cache in F16, I8 or F32, not in ", TraitsOf(kv.dtype).name);
  }
  if (kv.dtype == DType::kI8 && shape.head_dim > kMaxInt8HeadDim) {
    return Unimplemented("a KV cache in I8 needs heads of at most ", kMaxInt8HeadDim, ", found ", shape.head_dim,
                         ": use F16");
  }
  if (kv.num_kv_heads != shape.num_kv_heads || kv.num_layers != shape.num_layers || kv.head_dim != shape.head_dim ||
      kv.block_size <= 0 || num_blocks <= 0) {
    return InvalidArgument("the KV cache's layout does not fit the model: ", kv.num_kv_heads, " heads, ", kv.num_layers,
                           " layers, head size ", kv.head_dim, ", ", num_blocks, " blocks of ", kv.block_size,
                           " tokens");
  }
  return absl::OkStatus();
}

}  // namespace baton::cpu

#include "backend/cuda/activations.h"

#include <algorithm>

namespace baton::cuda {
namespace {

// Hands out pieces of one range; the first pass, without memory, only adds up.
class Pieces {
 public:
  explicit Pieces(uint8_t* base) : base_(base) {}
  template <typename T>
  void Take(T*& pointer, int64_t count) {
    pointer = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 1023) / 1024 * 1024;
  }
  int64_t used() const { return used_; }

 private:
  uint8_t* base_;
  int64_t used_ = 0;
};

int64_t Place(const ModelShape& shape, const StepLimits& limits, bool bf16_layers, uint8_t* base, Activations& out) {
  Pieces pieces(base);
  const int64_t tokens = std::max(limits.max_batch_tokens, 64);  // padded decode steps have up to 64 rows
  const int64_t element = bf16_layers ? 2 : 1;
  const int64_t attended = int64_t{shape.num_heads} * shape.head_dim;
  const int64_t kv = int64_t{shape.num_kv_heads} * shape.head_dim;
  pieces.Take(out.residual, tokens * shape.hidden_size);
  pieces.Take(out.qkv, tokens * (attended + 2 * kv));
  pieces.Take(out.attention, tokens * attended);
  pieces.Take(out.delta, tokens * shape.hidden_size);
  pieces.Take(out.gate_up, tokens * 2 * shape.intermediate_size);
  pieces.Take(out.logits, int64_t{out.logit_rows} * shape.vocabulary);
  auto take_input = [&](Activations::Input& input, int64_t rows, int64_t width, int64_t bytes) {
    pieces.Take(input.data, rows * width * bytes);
    pieces.Take(input.scale, rows);
  };
  take_input(out.normed, tokens, shape.hidden_size, element);
  take_input(out.attended, tokens, attended, element);
  take_input(out.activated, tokens, shape.intermediate_size, element);
  take_input(out.head_input, out.logit_rows, shape.hidden_size, 2);
  return pieces.used();
}

}  // namespace

absl::StatusOr<Activations> Activations::Create(const ModelShape& shape, const StepLimits& limits, bool bf16_layers) {
  Activations made;
  made.logit_rows = std::max(limits.max_sequences, 64);
  const int64_t bytes = Place(shape, limits, bf16_layers, nullptr, made);
  BATON_ASSIGN_OR_RETURN(made.memory_, CudaMemory::Allocate(CudaMemory::Kind::kDevice, bytes, "activations"));
  Place(shape, limits, bf16_layers, made.memory_.data(), made);
  BATON_RETURN_IF_CUDA_ERROR(cudaMemset(made.memory_.data(), 0, static_cast<size_t>(bytes)));
  return made;
}

}  // namespace baton::cuda

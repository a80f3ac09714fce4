// A Llama's weights inside a backend, Q, K and V as one matrix, gate and up as another. Types that the backend does not
// compute with reach it as BF16 (expand_weight.h).
//
// Ownership: must be destroyed before the backend that made them. Errors: those of the backend, with the weight's name.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "model/model.h"

namespace baton {

struct LlamaWeights {
  struct Layer {
    std::unique_ptr<VectorWeight> attention_norm;
    std::unique_ptr<LinearWeight> qkv;
    std::unique_ptr<LinearWeight> attention_output;
    std::unique_ptr<VectorWeight> mlp_norm;
    std::unique_ptr<LinearWeight> gate_up;
    std::unique_ptr<LinearWeight> down;
  };
  std::unique_ptr<LinearWeight> embedding;
  std::vector<Layer> layers;
  std::unique_ptr<VectorWeight> final_norm;
  std::unique_ptr<LinearWeight> separate_head;  // null when tied to the embedding

  const LinearWeight& head() const { return separate_head == nullptr ? *embedding : *separate_head; }
};

// One number, which the model has checked (model/weights.h).
float ReadScale(const TensorView& scale);
// What stored K ('k') or V ('v') of each layer are to be multiplied by; 1 where the model does not say.
std::vector<float> ReadKvScales(const Model& model, char letter);

absl::StatusOr<LlamaWeights> LoadLlamaWeights(const Model& model, Backend& backend,
                                              const std::function<void(double)>& on_progress);

}  // namespace baton

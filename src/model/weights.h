// Which weights a model has: their Hugging Face names, shapes and kinds, as the configuration implies them. Readers
// check what they found against this list; dummy weights are made from it.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "core/tensor.h"
#include "model/config.h"

namespace baton {

using TensorMap = std::unordered_map<std::string, TensorView>;

enum class WeightKind : uint8_t { kEmbedding, kNorm, kLinear, kBias };

struct WeightSpec {
  std::string name;
  std::vector<int64_t> shape;  // [out, in] of linear weights, [vocabulary, hidden] of the embedding
  WeightKind kind = WeightKind::kLinear;
};

// In the order of the forward pass; without the scales of FP8 weights. A tied head is not listed.
std::vector<WeightSpec> ExpectedWeights(const ModelConfig& config);

// Makes `tensors` exactly what an engine may look for, or says, by name, which tensor is missing, unexpected, of
// another shape or of a type that does not fit (each with what was expected and what was found):
//   - FP8 weights need their scales, which get the shape [out] or [1]; KV scales get the name self_attn.{k,v}_scale,
//     and are there for all layers or for none; every scale is positive and finite;
//   - a tied "lm_head.weight" becomes the embedding;
//   - tensors that carry nothing (stored rotary tables) are dropped.
absl::Status ArrangeWeights(const ModelConfig& config, TensorMap& tensors);

// "[2, 3] F16", for messages.
std::string DescribeTensor(const TensorView& tensor);
std::string DescribeShape(const std::vector<int64_t>& shape);

}  // namespace baton

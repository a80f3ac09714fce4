#include "bench/engine_work.h"

#include <algorithm>
#include <string_view>

namespace baton {
namespace {

double Elements(const TensorView& tensor) {
  double elements = 1;
  for (const int64_t extent : tensor.shape) elements *= static_cast<double>(extent);
  return elements;
}

}  // namespace

EngineWork WorkOf(const Model& model, const KvLayout& kv) {
  const ModelConfig& config = model.config();
  EngineWork work;
  for (const WeightSpec& spec : ExpectedWeights(config)) {
    if (spec.kind != WeightKind::kLinear || spec.name == "lm_head.weight") continue;
    const TensorView* tensor = model.Find(spec.name);
    if (tensor == nullptr) continue;
    work.layer_weight_bytes += static_cast<double>(tensor->bytes);
    work.layer_weights += Elements(*tensor);
  }
  const TensorView* head = model.Find("lm_head.weight");
  if (head == nullptr) head = model.Find("model.embed_tokens.weight");
  if (head != nullptr) {
    work.head_bytes = static_cast<double>(head->bytes);
    work.head_weights = Elements(*head);
  }
  work.kv_token_bytes = static_cast<double>(kv.token_bytes());
  work.attention_ops_per = 4.0 * config.num_layers * config.num_heads * config.head_dim;
  return work;
}

double FloorMicroseconds(const EngineWork& work, const StepShape& step, const Ceilings& ceilings) {
  const auto larger = [](double bytes, double byte_rate, double ops, double op_rate) {
    return std::max(bytes / byte_rate, ops / op_rate) * 1e6;
  };
  const double read = ceilings.read_bytes_per_second;
  const double rows = step.decode_rows + step.prompt_tokens;
  const double sampled = step.decode_rows + (step.prompt_tokens > 0 ? 1 : 0);
  const double matrices =
      larger(work.layer_weight_bytes, read, 2 * work.layer_weights * rows, ceilings.gemm_ops_per_second) +
      larger(work.head_bytes, read, 2 * work.head_weights * sampled, ceilings.gemm_ops_per_second);
  const double decode_pairs = static_cast<double>(step.decode_rows) * step.decode_context;
  const double decode = larger(decode_pairs * work.kv_token_bytes, read, decode_pairs * work.attention_ops_per,
                               ceilings.attention_ops_per_second);
  const double tokens = step.prompt_tokens;
  const double prompt_pairs = tokens * step.prompt_start + tokens * (tokens + 1) / 2;
  const double prompt = larger((step.prompt_start + tokens) * work.kv_token_bytes * (tokens > 0 ? 1 : 0), read,
                               prompt_pairs * work.attention_ops_per, ceilings.attention_ops_per_second);
  return matrices + decode + prompt;
}

}  // namespace baton

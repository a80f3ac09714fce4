// The seam between scheduler and engine: what to compute in one step, and what came out.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/ids.h"
#include "core/request.h"

namespace baton {

// One sequence's share of a step: `count` tokens from `start` on are computed, reading the KV cache before them.
// Spans point into the scheduler's sequence and stay valid until its next call: the engine reads them in Submit.
struct BatchItem {
  SequenceId sequence;
  std::span<const TokenId> tokens;       // prompt and generated tokens so far; at least start + count of them, but for
                                         // the one that sampled_by names
  int32_t prompt_length = 0;             // tokens [0, prompt_length) are the client's prompt
  int32_t start = 0;                     // position of the first token to compute
  int32_t count = 0;                     // at least 1; 1 for a decode step
  std::span<const BlockId> block_table;  // blocks of positions [0, start + count), in order
  bool sample = false;                   // choose the token that follows position start + count - 1
  bool prompt_logprobs = false;  // log-probability of tokens[i + 1] for each i in [start, start + count), in prompt
  const SamplingParams* sampling = nullptr;
  // The token at `start` is what this item of the step in flight samples: nobody knows it yet. Only for decode steps
  // (count 1) whose sampling does not depend on it. -1: all tokens are known.
  int32_t sampled_by = -1;
};

// The kinds of work in a step.
enum class KernelFamily : uint8_t { kGemm, kAttention, kElementwise, kSampling };
inline constexpr int kKernelFamilies = 4;
// Microseconds of a step by KernelFamily.
using StepProfile = std::array<double, kKernelFamilies>;

struct Batch {
  std::vector<BatchItem> items;
  bool profile = false;  // also measure StepOutput::profile; such a step is slower
  int32_t num_tokens() const {
    int32_t total = 0;
    for (const BatchItem& item : items) total += item.count;
    return total;
  }
};

struct StepOutput {
  struct Item {
    SampledToken sampled;                       // valid when the batch item asked to sample
    std::vector<SampledToken> prompt_logprobs;  // [count], or one less at the prompt's end, when asked for
  };
  std::vector<Item> items;  // [batch.items], in order
  int64_t duration_us = 0;  // of the step
  double idle_us = 0;       // how long the device lay idle before the step; 0 where it is not measured
  StepProfile profile{};    // when asked for
};

// Called by the engine during a step, in order, once for each group of layers whose K and V of the whole batch are in
// the KV cache. On a device they are there when `event` has passed (an opaque handle of the backend); on the CPU
// `event` is null. Spans of the batch may be gone by then.
class LayerGroupSink {
 public:
  virtual ~LayerGroupSink() = default;
  virtual void OnLayersDone(const Batch& batch, int32_t layer_begin, int32_t layer_end, void* event) = 0;
};

}  // namespace baton

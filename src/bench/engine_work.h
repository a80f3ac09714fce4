// How much a step must read and compute at the very least: the floors of `baton bench engine`.
//
// Threading: pure. Errors: none.
#pragma once

#include <cstdint>

#include "backend/ceilings.h"
#include "core/kv_layout.h"
#include "model/model.h"

namespace baton {

// A step of decode rows at one context, and one chunk of a prompt beside them.
struct StepShape {
  int32_t decode_rows = 0;
  int32_t decode_context = 0;  // tokens that each row sees, its own included
  int32_t prompt_tokens = 0;
  int32_t prompt_start = 0;  // tokens of that prompt that are in the cache already
};

struct EngineWork {
  double layer_weight_bytes = 0, layer_weights = 0;  // of all layers' matrices; elements
  double head_bytes = 0, head_weights = 0;
  double kv_token_bytes = 0;     // of all layers
  double attention_ops_per = 0;  // operations of one query token and one key token, all layers and heads
};

EngineWork WorkOf(const Model& model, const KvLayout& kv);

// Microseconds that no implementation goes below: for matrices, and for attention, the larger of what reading and what
// computing takes; one row of logits for each decode row, and one for the prompt.
double FloorMicroseconds(const EngineWork& work, const StepShape& step, const Ceilings& ceilings);

}  // namespace baton

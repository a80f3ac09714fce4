// What the front end needs of a model: its tokenizer, chat template and limits, without an engine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "app/options.h"
#include "base/status.h"
#include "core/tokenizer_data.h"

namespace baton {

struct ModelText {
  std::string name;  // for /v1/models
  TokenizerData tokenizer;
  int32_t vocabulary = 0;     // of the weights: may be larger than the tokenizer's
  int32_t max_model_len = 0;  // tokens
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

// For simulated engines: a byte-level tokenizer without merges.
absl::StatusOr<ModelText> ReadModelText(const EngineFlags& flags);

}  // namespace baton

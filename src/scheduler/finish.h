// When a sequence is finished: pure rules, with vLLM's semantics, shared by the scheduler and by whoever gets a first
// token from elsewhere.
//
//   * an end token finishes (kStop), unless ignore_eos; so does each of stop_token_ids, even with ignore_eos;
//   * neither does before min_tokens are generated (the sampler masks them; this is the second line of defence);
//   * max_tokens generated, or max_model_len in all: kLength. A stop token at the limit is still kStop.
#pragma once

#include <cstdint>
#include <span>

#include "core/request.h"

namespace baton {

struct FinishRules {
  std::span<const TokenId> eos;
  int32_t max_model_len = 0;  // tokens, prompt included
};

// `last`: the newest token; `generated`: how many were generated, it included.
FinishReason FinishAfter(const FinishRules& rules, const SamplingParams& sampling, int32_t prompt_length,
                         int32_t generated, TokenId last);

}  // namespace baton

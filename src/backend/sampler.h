// Chooses one token from one row of logits, as vLLM orders it: logit bias, min_tokens, penalties (repetition, then
// frequency and presence), temperature, top-k, top-p, min-p, draw. Log-probabilities are those of the raw logits.
//
// The draw is keyed by (seed, choice, position), over the candidates in the order of their ids: the same request gives
// the same token on every worker, in every batch. Greedy ties go to the lowest id. The vocabulary is never sorted.
//
// Threading: pure functions; one scratch for each thread. Errors: Internal for logits that are not finite.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "core/request.h"

namespace baton {

struct SamplerInput {
  std::span<const float> logits;        // [vocabulary]
  std::span<const TokenId> tokens;      // the sequence so far: the prompt and what was generated
  int32_t prompt_length = 0;            // tokens [0, prompt_length) are the prompt
  std::span<const TokenId> end_tokens;  // that end an answer
  const SamplingParams* params = nullptr;
};

// Reused from call to call, so that none allocates.
struct SamplerScratch {
  std::vector<float> logits;
  std::vector<float> weights;
  std::vector<TokenId> tokens;
  std::vector<TokenId> candidates;
  std::vector<TokenId> sorted;
};

absl::StatusOr<SampledToken> Sample(const SamplerInput& input, SamplerScratch& scratch);

// The log-probability of `token`, and of the `top_logprobs` best tokens.
absl::StatusOr<SampledToken> ScoreToken(std::span<const float> logits, TokenId token, int32_t top_logprobs);

}  // namespace baton

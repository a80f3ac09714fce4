// What a client asks for, after text has become tokens and defaults have been filled in.
#pragma once

#include <absl/container/inlined_vector.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "core/ids.h"

namespace baton {

// How the next token is chosen. Sampling is keyed by (seed, choice, position): see core/random.h.
struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy
  float top_p = 1.0f;               // (0, 1]
  int32_t top_k = 0;                // 0: off
  float min_p = 0.0f;               // [0, 1]
  float frequency_penalty = 0.0f;   // [-2, 2], counts generated tokens
  float presence_penalty = 0.0f;    // [-2, 2], generated tokens
  float repetition_penalty = 1.0f;  // > 0, prompt and generated tokens
  std::vector<std::pair<TokenId, float>> logit_bias;
  uint64_t seed = 0;
  int32_t choice = 0;       // index among the n choices of one request
  int32_t max_tokens = 16;  // generated tokens, at least 1
  int32_t min_tokens = 0;   // end and stop tokens are masked before
  bool ignore_eos = false;  // the end token is an ordinary token
  std::vector<TokenId> stop_token_ids;
  int32_t top_logprobs = -1;     // -1: no log-probabilities; 0: of the chosen token; k: of the k best as well
  bool prompt_logprobs = false;  // log-probabilities of every prompt token too (echo): no prefix-cache hits

  // Whether the choice depends on which tokens came before, beyond what the model makes of them.
  bool has_penalties() const {
    return frequency_penalty != 0.0f || presence_penalty != 0.0f || repetition_penalty != 1.0f;
  }
};

// One sequence to generate: one prompt and one choice. A request with n choices is n of these.
struct Request {
  std::string id;  // x-request-id; unique together with sampling.choice
  std::vector<TokenId> prompt;
  std::vector<TokenId> generated;  // tokens that the client already has (a replay after a failure); count toward limits
  SamplingParams sampling;
  std::string cache_salt;  // prefix-cache blocks are shared only between equal salts
  std::string user;        // for fairness
  int32_t priority = 0;    // lower is served first
  int64_t timeout_ms = 0;  // remaining time; 0: none
};

enum class FinishReason : uint8_t { kNone, kStop, kLength, kCancelled, kError };  // kNone: not finished

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // natural logarithm, of the distribution before temperature and truncation
};

// One generated token, as it leaves the sampler.
struct SampledToken {
  TokenId token = 0;
  float logprob = 0;                       // valid when top_logprobs >= 0
  std::vector<TokenLogprob> top_logprobs;  // best first, [top_logprobs]
};

// Where the time of one sequence went, in microseconds, and how it came to its KV cache.
struct Waterfall {
  int64_t queue_us = 0;    // until the first prefill step began
  int64_t prefill_us = 0;  // from there to the first token
  int64_t handoff_us = 0;  // from the end of prefill until the decode worker could step
  int64_t handoff_bytes = 0;
  std::string handoff_path;     // for example "shm 9.8 GB/s"; empty when nothing was handed over
  int32_t cached_tokens = 0;    // prompt tokens that no worker had to compute
  uint64_t prefill_worker = 0;  // WorkerId values; equal when prefilled where it decodes
  uint64_t decode_worker = 0;
};

// One piece of a sequence's answer. Tokens come in order and, after a failover, may come twice: `position` says which.
struct TokenEvent {
  int32_t position = 0;                         // index of the first of `tokens` among the generated ones, from 0
  absl::InlinedVector<SampledToken, 1> tokens;  // nearly always one
  std::vector<SampledToken> prompt_logprobs;    // [prompt - 1], with the first token, when asked for
  FinishReason finish = FinishReason::kNone;
  absl::Status status;  // the reason when finish is kError or kCancelled
  Waterfall waterfall;  // filled with the first token; completed with the last
};

}  // namespace baton

// The requests of a benchmark: prompts as token ids, bodies, and times of arrival. Everything is a function of the
// seed.
//
// Threading: free functions; any thread. Ownership: values. Errors: InvalidArgument for sizes that make no sense.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace baton {

struct Workload {
  int32_t input_tokens = 512;
  int32_t output_tokens = 64;
  int32_t requests = 10;             // measured
  int32_t warmup = 2;                // before them; their prompts differ from all measured ones
  int32_t shared_prefix_tokens = 0;  // that all prompts begin with; at most input_tokens
  bool text_prompts = false;         // common words, about a token each, in place of token ids
  int32_t concurrency = 1;           // closed loop: requests at a time
  double requests_per_second = 0;    // open loop: mean arrivals of a Poisson process; 0: closed loop
  uint64_t seed = 100;
};

absl::Status CheckWorkload(const Workload& workload);

// The prompt of request `index` (warm-up requests follow the measured ones), input_tokens ids out of `pool`.
std::vector<int32_t> PromptTokens(const Workload& workload, std::span<const int32_t> pool, int64_t index);

// The JSON of a streamed greedy completion of exactly output_tokens tokens.
std::string CompletionBody(const Workload& workload, std::string_view model, std::span<const int32_t> prompt);

// Likewise, with a prompt of text that needs no escapes.
std::string CompletionBody(const Workload& workload, std::string_view model, std::string_view text);
// A common word, with a space before it, for each of these numbers.
std::string PromptText(std::span<const int32_t> draws);

// Seconds after the start at which each measured request arrives, ascending. Empty in a closed loop.
std::vector<double> ArrivalSeconds(const Workload& workload);

// A text of common words and syllables: what a tokenizer makes of it are ordinary tokens.
std::string VocabularyProbeText();
// Distinct ids in order of appearance.
std::vector<int32_t> DistinctTokens(std::span<const int32_t> tokens);

}  // namespace baton

#include "scheduler/finish.h"

#include <algorithm>

namespace baton {

FinishReason FinishAfter(const FinishRules& rules, const SamplingParams& sampling, int32_t prompt_length,
                         int32_t generated, TokenId last) {
  if (generated >= sampling.min_tokens) {
    const bool ends = !sampling.ignore_eos && std::ranges::find(rules.eos, last) != rules.eos.end();
    if (ends || std::ranges::find(sampling.stop_token_ids, last) != sampling.stop_token_ids.end()) {
      return FinishReason::kStop;
    }
  }
  if (generated >= sampling.max_tokens || prompt_length + generated >= rules.max_model_len) {
    return FinishReason::kLength;
  }
  return FinishReason::kNone;
}

}  // namespace baton

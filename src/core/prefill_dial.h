// The dial between disaggregated and aggregated serving: how many prompt tokens may ride on the next decode step of one
// worker.
//
// A pure function of the latency targets, the worker's measured step times, and what it has to do. 0 is static
// disaggregation; a worker that takes every prompt is chunked aggregation; the dial stands wherever the targets leave
// room:
//
//   * no step takes longer than the inter-token target allows;
//   * if that can be: the prompts that wait have their first token in time (`rate_needed`), else as fast as can be;
//   * of what remains, the budget that delays everybody least, together: those who wait by the steps that their prompts
//     take, those who decode by what riding adds to each. That is just under a jump of the step time, not just above.
//
// The inter-token target is a mean over a sequence's tokens, so the time that a decode row has saved on fast steps may
// be spent on slow ones (`slack_us`), within bounds that keep single gaps tolerable.
#pragma once

#include <cstdint>

#include "core/step_time_table.h"

namespace baton {

struct LatencyTargets {
  double ttft_ms = 1000;  // from a request's arrival to its first token
  double itl_ms = 40;     // mean between a request's tokens
};

struct DialState {
  int64_t decode_rows = 0;
  int64_t decode_context = 0;         // tokens, of all rows together
  int64_t prompts_waiting = 1;        // that are to be computed here, wholly or in part
  int64_t prompt_tokens_waiting = 0;  // of them; more than these cannot ride
  int64_t prompt_context = 0;         // tokens before the first of them
  double rate_needed = 0;             // prompt tokens a microsecond that keep the TTFT target of all that wait
  int64_t most = 0;                   // tokens that fit beside the rows
  double slack_us = 0;                // that the row with the least has saved; negative: it is behind already
};

// Of the target, what a plan may use: the rest is for what nobody foresees.
inline constexpr double kTtftShare = 0.7;

// Prompt tokens, in [0, most].
int64_t PrefillBudget(const StepTimeTable& times, const LatencyTargets& targets, const DialState& state);

}  // namespace baton

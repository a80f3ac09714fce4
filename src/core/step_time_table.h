// How long one step of a worker takes, as measured: by decode rows, prompt tokens that ride beside them, and context.
//
//   time = products(rows + prompt tokens)              between measured points by straight lines
//        + decode_row_us × rows                        sampling and the like
//        + decode_only_us                              when no prompt token rides (a captured graph saves time)
//        + decode_context_us × tokens of context that the rows read
//        + prefill_context_us × prompt tokens × tokens of context before each
//
// Products are bound by memory for few tokens and by arithmetic for many, with jumps where a tile is full; all tokens
// of a step go through them together, so they depend on the sum. What attention adds is proportional to the context.
// Shared by the scheduler (what may ride on the next step) and the router (how long would it take there).
//
// A plain value. Limits: Validate says what a table from elsewhere may look like.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/status.h"

namespace baton {

struct StepShape {
  int64_t decode_rows = 0;
  int64_t decode_context = 0;  // tokens, of all rows together
  int64_t prompt_tokens = 0;
  int64_t prompt_context = 0;  // tokens before the first of them
  bool operator==(const StepShape&) const = default;
};

struct StepTimeTable {
  struct Point {
    int32_t tokens = 0;  // of the step
    double us = 0;
    bool operator==(const Point&) const = default;
  };
  std::vector<Point> products;  // ascending by tokens; without context
  double decode_row_us = 0;     // may be negative, as the next one
  double decode_only_us = 0;
  double decode_context_us = 0;
  double prefill_context_us = 0;
  double factor = 1;  // of everything above: how much slower steps are now than when they were measured

  bool operator==(const StepTimeTable&) const = default;
  bool empty() const { return products.empty(); }
  // 0 for a step without anything. Beyond the points the last piece's line goes on.
  double StepUs(const StepShape& shape) const;
  // Prompt tokens alone, in steps of at most `chunk_tokens`, of `prompts` of equal length, each after `cached` tokens.
  double PrefillUs(int64_t tokens, int64_t cached, int32_t chunk_tokens, int64_t prompts = 1) const;
  // InvalidArgument unless there are 1 to 256 points, ascending from at least 1, and all times are finite.
  absl::Status Validate() const;

  // For a worker of which only two rates are known.
  static StepTimeTable FromRates(double prefill_tokens_per_second, double decode_step_us);
};

// Fills in a table by measuring steps. `measure` returns the microseconds of one step of that shape, whose rows have
// equal contexts.
struct StepTimePlan {
  std::vector<int32_t> tokens;  // ascending, from 1: prompt tokens of the steps that give the products
  int32_t decode_rows = 1;      // of the largest decode step
  int32_t context = 0;          // tokens, of the steps that show what context adds; 0: not measured
};
absl::StatusOr<StepTimeTable> MeasureStepTimes(const StepTimePlan& plan,
                                               const std::function<absl::StatusOr<double>(const StepShape&)>& measure);

}  // namespace baton

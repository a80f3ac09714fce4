#include "core/prefill_dial.h"

#include <algorithm>
#include <utility>

namespace baton {
namespace {

// A single gap is never planned longer than so many targets, however much was saved.
constexpr double kGapTargetsMax = 2;

}  // namespace

int64_t PrefillBudget(const StepTimeTable& times, const LatencyTargets& targets, const DialState& state) {
  const int64_t most = std::min(state.most, state.prompt_tokens_waiting);
  if (most <= 0) return 0;
  if (state.decode_rows == 0 || times.empty()) return state.most;
  const double target_us = targets.itl_ms * 1e3;
  const double limit_us = std::clamp(target_us + state.slack_us, 0.0, kGapTargetsMax * target_us);
  const auto step_us = [&](int64_t tokens) {
    return times.StepUs({.decode_rows = state.decode_rows,
                         .decode_context = state.decode_context,
                         .prompt_tokens = tokens,
                         .prompt_context = state.prompt_context});
  };
  const double decode_us = step_us(0);
  const auto rows = static_cast<double>(state.decode_rows), waiting = static_cast<double>(state.prompts_waiting);
  int64_t best = 0;
  double best_rate = 0, best_delay = 0;
  const auto consider = [&](int64_t tokens) {
    const double us = step_us(tokens);
    if (tokens <= 0 || us > limit_us) return;
    // Beyond what is needed a higher rate is worth nothing by itself.
    const double rate = std::min(static_cast<double>(tokens) / us, state.rate_needed);
    const double delay = (waiting * us + rows * (us - decode_us)) / static_cast<double>(tokens);
    if (best > 0 && std::pair(-rate, delay) > std::pair(-best_rate, best_delay)) return;
    best = tokens;
    best_rate = rate;
    best_delay = delay;
  };
  // Between two measured points the time is (nearly) a straight line: its best point is an end, or where it crosses the
  // limit.
  int64_t begin = 0;
  for (size_t i = 0; i <= times.products.size() && begin < most; ++i) {
    const int64_t point = i < times.products.size() ? times.products[i].tokens - state.decode_rows : most;
    if (point <= begin) continue;
    const int64_t end = std::min(point, most);
    consider(end);
    const double at_begin = step_us(begin), at_end = step_us(end);
    if (at_begin <= limit_us && at_end > limit_us) {
      const double share = (limit_us - at_begin) / (at_end - at_begin);
      consider(begin + static_cast<int64_t>(static_cast<double>(end - begin) * share));
    }
    begin = end;
  }
  return best;
}

}  // namespace baton

// How fast this worker has been lately, for the router's estimates.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace baton {

class StepRates {
 public:
  // Before the first steps: what a measurement at start showed; 0: nothing.
  explicit StepRates(double prefill_tokens_per_second) : prefill_tokens_per_second_(prefill_tokens_per_second) {}
  // One step: its prompt tokens, its decode rows, and how long it took.
  void Add(int32_t prefill_tokens, int32_t decode_rows, int64_t duration_us) {
    const double seconds = static_cast<double>(std::max<int64_t>(1, duration_us)) * 1e-6;
    // Only steps of one kind say something about that kind; a few tokens take as long as one.
    if (prefill_tokens >= kTellingTokens && decode_rows == 0)
      Blend(prefill_tokens_per_second_, prefill_tokens / seconds);
    if (prefill_tokens > 0 || decode_rows == 0) return;
    Blend(decode_step_us_, seconds * 1e6);
    recent_decode_us_[next_++ % recent_decode_us_.size()] = seconds * 1e6;
  }
  double prefill_tokens_per_second() const { return prefill_tokens_per_second_; }
  double decode_step_us() const { return decode_step_us_; }
  // Of the last few decode steps the shortest; 0 before there were so many.
  double fewest_decode_step_us() const { return std::ranges::min(recent_decode_us_); }

 private:
  static constexpr int32_t kTellingTokens = 32;
  static void Blend(double& average, double sample) { average = average == 0 ? sample : 0.9 * average + 0.1 * sample; }
  double prefill_tokens_per_second_ = 0;
  double decode_step_us_ = 0;
  std::array<double, 8> recent_decode_us_{};
  size_t next_ = 0;
};

}  // namespace baton

// How much longer steps take now than the table that was measured at the start says: the ratio of what recent steps
// took to what was expected of them, so long ones count most.
//
//   factor.Observe(table.StepUs(shape), took_us);
//   table.factor = factor.value();
//
// A plain value; no clock. `expected_us` is of a table whose own factor is 1. Slow on purpose: half of what it knows is
// of the last seven seconds of steps, so a single slow step is no news. Limits: 0.1 to 10.
#pragma once

#include <algorithm>
#include <cmath>

namespace baton {

class StepTimeFactor {
 public:
  void Observe(double expected_us, double took_us) {
    if (!(expected_us > 0) || !(took_us > 0)) return;
    const double kept = std::exp(-took_us / kMemoryUs);
    expected_us_ = kept * expected_us_ + expected_us;
    took_us_ = kept * took_us_ + took_us;
  }
  double value() const { return std::clamp(took_us_ / expected_us_, 0.1, 10.0); }

 private:
  static constexpr double kMemoryUs = 10e6;
  // The measurement at the start counts as a second of steps.
  double expected_us_ = 1e6;
  double took_us_ = 1e6;
};

}  // namespace baton

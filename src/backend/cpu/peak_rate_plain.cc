#include "backend/cpu/peak_rate.h"

namespace baton::cpu {
namespace {

constexpr int kLanes = 64;
constexpr int kLoops = 2000;

// The compiler may not see through `factor`, nor drop sums that end in a volatile.
template <typename Element, typename Sum>
int64_t Run() {
  volatile Element source = 3;
  volatile Sum sink;
  const Element factor = source;
  Element values[kLanes];
  Sum sums[kLanes] = {};
  for (int i = 0; i < kLanes; ++i) values[i] = static_cast<Element>(i);
  for (int loop = 0; loop < kLoops; ++loop) {
    for (int i = 0; i < kLanes; ++i) sums[i] += static_cast<Sum>(values[i]) * static_cast<Sum>(factor);
    asm volatile("" : : "r"(values), "r"(sums) : "memory");
  }
  for (int i = 0; i < kLanes; ++i) sink = sums[i];
  (void)sink;
  return int64_t{2} * kLanes * kLoops;
}

}  // namespace

PeakRate Int8RatePlain() { return {Run<int8_t, int32_t>}; }
PeakRate FloatRatePlain() { return {Run<float, float>}; }

}  // namespace baton::cpu

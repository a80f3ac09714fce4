// Which values of a group of blocks are outliers (activation_tiles.h): one home for the rule, for every instruction
// set. Internal linkage and always inline, as in avx2.h: it may be included by files compiled for different
// instructions.
#pragma once

#include <cstdint>
#include <cstring>

#include "backend/cpu/activation_tiles.h"

namespace baton::cpu {

// Takes the outliers of `blocks` (at most kOutlierGroup) blocks out of `values`, where zeros stay. `first_column`: of
// the group. `largest(block)`: the largest magnitude among 32 floats, as bits (NaN is larger than anything).
template <typename Largest>
static inline __attribute__((always_inline)) void TakeOutliers(float* values, int blocks, int64_t first_column,
                                                               Largest largest, Outlier* outliers) {
  uint32_t magnitudes[kOutlierGroup];
  for (int b = 0; b < blocks; ++b) magnitudes[b] = largest(values + b * kQuantBlock);
  for (int taken = 0; taken < OutliersOfGroup(blocks); ++taken) {
    int most = 0;
    for (int b = 1; b < blocks; ++b) most = magnitudes[b] > magnitudes[most] ? b : most;
    float* block = values + most * kQuantBlock;
    int i = 0;
    for (; i < kQuantBlock - 1; ++i) {
      uint32_t bits;
      std::memcpy(&bits, block + i, 4);
      if ((bits & 0x7fffffffu) == magnitudes[most]) break;
    }
    outliers[taken] = {static_cast<int32_t>(first_column + most * kQuantBlock + i), block[i]};
    block[i] = 0;
    magnitudes[most] = largest(block);
  }
}

}  // namespace baton::cpu

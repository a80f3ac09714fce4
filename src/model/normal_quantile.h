// Tables of normally distributed numbers: entry i is the quantile of (i + 0.5) / size, so that a uniform index draws a
// normal number. Computed with + - × / and square roots alone, so that every machine has the same bits.
#pragma once

#include <cstdint>
#include <vector>

namespace baton {

// Standard normal: [size], ascending, symmetric. Relative error 1.2e-9.
std::vector<double> NormalQuantiles(int32_t size);

}  // namespace baton

// Made-up weights in the shapes of a real model (--load-format dummy): for measuring and testing without its files.
//
// Every element is a function of the seed, the tensor's name and the element's index, and of nothing else, so that
// every worker, whatever its threads, machine or share of the heads, has the same model. Values are spread as in a
// trained one: normal with standard deviation 1/sqrt(in), norms near 1. FP8 weights use all of E4M3's range and their
// scales carry the magnitude, so that kernels, and the power they draw, see realistic bits.
//
// Large tensors may stay recipes (core/tensor_recipe.h) for a device that makes them for itself: the same bytes,
// without filling the host's memory and copying it.
//
// Threading: fills with as many threads as the process has cores. Ownership: the parts own the memory.
// Errors: ResourceExhausted when the memory cannot be mapped.
// Limits: of the modules that a checkpoint leaves unquantized, regular expressions are not followed but for lm_head.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "model/config.h"
#include "model/model.h"

namespace baton {

// Fills in the tensors and memory of `parts`, whose configuration says which: linear weights in FP8 with scales if it
// is quantized, everything else in its dtype. `as_recipes`: tensors of more than a million elements get no memory.
absl::Status MakeDummyWeights(uint64_t seed, ModelParts& parts, bool as_recipes = false);

}  // namespace baton

// Times the GEMM library's algorithms for the products and the numbers of rows that steps will have.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/activations.h"
#include "backend/cuda/gemm.h"

namespace baton::cuda {

// Decode steps are padded to these numbers of rows, so that a graph serves many.
inline constexpr std::array<int32_t, 11> kGraphRows = {1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64};
// cuBLASLt is slower with fewer rows (24.5 ms a step with one, 21.4 with eight): products then take eight, some unused.
inline constexpr int64_t kFewestProductRows = 8;

using LayersByShape = std::map<GemmShape, std::vector<const void*>>;  // weights of each shape

// But those that the own kernel does. Overwrites activations.
absl::Status TuneLayers(const LayersByShape& layers, const ModelShape& shape, const StepLimits& limits, bool own_gemm,
                        const Activations& activations, Gemm& gemm, cudaStream_t stream);

}  // namespace baton::cuda

// The kernels in portable C++, collected by PlainKernels().
#pragma once

#include "backend/cpu/kernels.h"
#include "backend/exp.h"

namespace baton::cpu {
void QuantizeTilePlain(InputKind kind, const float* x, int64_t stride, int width, int64_t k, uint8_t* tile,
                       Outlier* outliers);
inline constexpr int kPlainTileWidth = 4;  // columns of a tile of large groups
template <PackedKind kKind>
void MultiplyPlain(const MultiplyArgs& args);  // defined for every kind
void AttentionPlain(const AttentionArgs& args);
void MergeSectionsPlain(float* partials, int sections, int heads, int dim, float* out);

}  // namespace baton::cpu

// Products with 5-bit weights.
#include "backend/cpu/multiply_nibbles_avx2.h"

namespace baton::cpu {

void MultiplyQ5Avx2(const MultiplyArgs& args) { MultiplyNibbles<PackedKind::kQ5>(args); }
void MultiplyQ5MinAvx2(const MultiplyArgs& args) { MultiplyNibbles<PackedKind::kQ5Min>(args); }
void MultiplyQ5KAvx2(const MultiplyArgs& args) { MultiplyNibbles<PackedKind::kQ5K>(args); }

}  // namespace baton::cpu

// Products with 6-bit weights.
#include "backend/cpu/multiply_nibbles_avx2.h"

namespace baton::cpu {

void MultiplyQ6KAvx2(const MultiplyArgs& args) { MultiplyNibbles<PackedKind::kQ6K>(args); }

}  // namespace baton::cpu

// Products with 4-bit weights.
#include "backend/cpu/multiply_nibbles_avx2.h"

namespace baton::cpu {

void MultiplyQ4Avx2(const MultiplyArgs& args) { MultiplyNibbles<PackedKind::kQ4>(args); }
void MultiplyQ4MinAvx2(const MultiplyArgs& args) { MultiplyNibbles<PackedKind::kQ4Min>(args); }
void MultiplyQ4KAvx2(const MultiplyArgs& args) { MultiplyNibbles<PackedKind::kQ4K>(args); }

}  // namespace baton::cpu

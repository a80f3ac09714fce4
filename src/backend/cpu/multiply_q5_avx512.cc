// Products with 5-bit weights.
#include "backend/cpu/multiply_integer_avx512.h"

namespace baton::cpu {

void MultiplyQ5Avx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ5>(args); }
void MultiplyQ5MinAvx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ5Min>(args); }
void MultiplyQ5KAvx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ5K>(args); }

}  // namespace baton::cpu

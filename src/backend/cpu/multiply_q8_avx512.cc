// Products with 6- and 8-bit weights.
#include "backend/cpu/multiply_integer_avx512.h"

namespace baton::cpu {

void MultiplyQ6KAvx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ6K>(args); }
void MultiplyQ8Avx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ8>(args); }

}  // namespace baton::cpu

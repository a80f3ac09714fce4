// Products with 4-bit weights.
#include "backend/cpu/multiply_integer_avx512.h"

namespace baton::cpu {

void MultiplyQ4Avx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ4>(args); }
void MultiplyQ4MinAvx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ4Min>(args); }
void MultiplyQ4KAvx512(const MultiplyArgs& args) { MultiplyIntegers<PackedKind::kQ4K>(args); }

}  // namespace baton::cpu

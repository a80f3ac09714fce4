#include "backend/cpu/kernels.h"

#include <vector>

#include "backend/cpu/vector_kernels.h"

namespace baton::cpu {
namespace {

constexpr Kernels kAvx2 = {
    "avx2",
    {0, kAvx2NibbleTile, kAvx2NibbleTile, kMaxTileWidth},
    QuantizeTileAvx2,
    {MultiplyF32Avx2, MultiplyF16Avx2, MultiplyBf16Avx2, MultiplyQ8Avx2, MultiplyQ4Avx2, MultiplyQ4MinAvx2,
     MultiplyQ5Avx2, MultiplyQ5MinAvx2, MultiplyQ4KAvx2, MultiplyQ5KAvx2, MultiplyQ6KAvx2},
    NormAvx2,
    RotateAvx2,
    StoreHalfAvx2,
    StoreInt8Avx2,
    StoreInt8KeyAvx2,
    AttentionAvx2,
    MergeSectionsAvx2,
    SwiGluAvx2,
};

// To AVX2's bits. What is bound by memory or takes little time stays AVX2's.
constexpr Kernels kAvx512 = {
    "avx512",
    {0, kAvx512Tile, kAvx512Tile, kAvx512Tile},
    QuantizeTileAvx2,
    {MultiplyF32Avx512, MultiplyF16Avx512, MultiplyBf16Avx512, MultiplyQ8Avx512, MultiplyQ4Avx512, MultiplyQ4MinAvx512,
     MultiplyQ5Avx512, MultiplyQ5MinAvx512, MultiplyQ4KAvx512, MultiplyQ5KAvx512, MultiplyQ6KAvx512},
    NormAvx2,
    RotateAvx2,
    StoreHalfAvx2,
    StoreInt8Avx2,
    StoreInt8KeyAvx2,
    AttentionAvx512,
    MergeSectionsAvx2,
    SwiGluAvx2,
};

constexpr Kernels WithBf16(Kernels kernels) {
  kernels.name = "avx512bf16";
  kernels.multiply[static_cast<int>(PackedKind::kBF16)] = MultiplyBf16Avx512Bf16;
  return kernels;
}
constexpr Kernels kAvx512Bf16 = WithBf16(kAvx512);

std::vector<const Kernels*> FindKernels() {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  std::vector<const Kernels*> found;
  if (avx512 && __builtin_cpu_supports("avx512bf16")) found.push_back(&kAvx512Bf16);
  if (avx512) found.push_back(&kAvx512);
  if (avx2) found.push_back(&kAvx2);
  found.push_back(&PlainKernels());
  return found;
}

}  // namespace

std::span<const Kernels* const> KernelsHere() {
  static const std::vector<const Kernels*> kFound = FindKernels();
  return kFound;
}

absl::StatusOr<const Kernels*> ChooseKernels(std::string_view name) {
  std::string here;
  for (const Kernels* kernels : KernelsHere()) {
    if (name.empty() || name == "auto" || name == kernels->name) return kernels;
    here += Cat(here.empty() ? "" : ", ", kernels->name);
  }
  if (name == kAvx2.name || name == kAvx512.name || name == kAvx512Bf16.name) {
    return FailedPrecondition("instruction set '", name, "': this machine does not have it; it has ", here);
  }
  return InvalidArgument("instruction set '", name, "': expected auto or one of plain, avx2, avx512, avx512bf16");
}

}  // namespace baton::cpu

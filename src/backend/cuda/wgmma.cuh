// Warpgroup matrix products (wgmma, sm_90a): FP16 or E4M3 operands, FP32 sums in registers, B from shared memory.
#pragma once

#include <cstdint>

namespace baton::cuda {

__device__ __forceinline__ void WarpgroupFence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void WarpgroupCommit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void WarpgroupWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Keeps the compiler from moving uses of sums across a wait.
template <int kCount>
__device__ __forceinline__ void PinRegisters(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

// Operands lie in rows of 128 bytes, 16-byte chunk q of row r at q ^ (r & 7), 1024-byte aligned groups of 8 rows.
// K-major: a row is one output index, its bytes run along the summed index.
__device__ __forceinline__ uint64_t KMajorDescriptor(uint32_t shared) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}
// MN-major: a row is one summed index, its 64 elements run along the output; the next 64 outputs lie `stride` bytes on.
__device__ __forceinline__ uint64_t MnMajorDescriptor(uint32_t shared, uint32_t stride) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) | (static_cast<uint64_t>(stride >> 4) << 16) | (64ull << 32) |
         (1ull << 62);
}

// The sums of an instruction, as its text and as operands %0 … of its asm statement.
#define BATON_TEXT_4 "%0, %1, %2, %3"
#define BATON_TEXT_16 BATON_TEXT_4 ", %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define BATON_TEXT_32 BATON_TEXT_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define BATON_TEXT_64                                                                                 \
  BATON_TEXT_32                                                                                       \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, " \
  "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define BATON_SUMS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define BATON_SUMS_16(d, i) BATON_SUMS_4(d, i), BATON_SUMS_4(d, i + 4), BATON_SUMS_4(d, i + 8), BATON_SUMS_4(d, i + 12)
#define BATON_SUMS_32(d, i) BATON_SUMS_16(d, i), BATON_SUMS_16(d, i + 16)
#define BATON_SUMS_64(d) BATON_SUMS_32(d, 0), BATON_SUMS_32(d, 32)
// An instruction whose last operand says whether to add to the sums.
#define BATON_WGMMA(shape, sums, operands, flag, scales)                                                     \
  "{ .reg .pred p; setp.ne.b32 p, " flag ", 0; wgmma.mma_async.sync.aligned." shape " {" sums "}, " operands \
  ", p, " scales "; }"

// d[64][128] (+)= A[64][16] × B[128][16]ᵀ, both K-major in shared memory.
__device__ __forceinline__ void ProductN128(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n128k16.f32.f16.f16", BATON_TEXT_64, "%64, %65", "%66", "1, 1, 0, 0")
               : BATON_SUMS_64(d)
               : "l"(a), "l"(b), "r"(accumulate));
}

// d[64][128] += A[64][16] (registers) × B[16][128], B MN-major in shared memory.
__device__ __forceinline__ void ProductMnMajor(float (&d)[64], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n128k16.f32.f16.f16", BATON_TEXT_64, "{%64, %65, %66, %67}, %68", "%69", "1, 1, 1")
               : BATON_SUMS_64(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));
}
// d[64][64] likewise.
__device__ __forceinline__ void ProductMnMajor(float (&d)[32], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n64k16.f32.f16.f16", BATON_TEXT_32, "{%32, %33, %34, %35}, %36", "%37", "1, 1, 1")
               : BATON_SUMS_32(d, 0)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));
}

// d[64][8] (+)= A[64][32] × B[8][32]ᵀ of E4M3, both K-major in shared memory.
__device__ __forceinline__ void ProductFp8(float (&d)[4], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n8k32.f32.e4m3.e4m3", BATON_TEXT_4, "%4, %5", "%6", "1, 1")
               : BATON_SUMS_4(d, 0)
               : "l"(a), "l"(b), "r"(accumulate));
}
// d[64][32] likewise.
__device__ __forceinline__ void ProductFp8(float (&d)[16], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n32k32.f32.e4m3.e4m3", BATON_TEXT_16, "%16, %17", "%18", "1, 1")
               : BATON_SUMS_16(d, 0)
               : "l"(a), "l"(b), "r"(accumulate));
}

// d[64][64] and d[64][128] likewise.
__device__ __forceinline__ void ProductFp8(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n64k32.f32.e4m3.e4m3", BATON_TEXT_32, "%32, %33", "%34", "1, 1")
               : BATON_SUMS_32(d, 0)
               : "l"(a), "l"(b), "r"(accumulate));
}
__device__ __forceinline__ void ProductFp8(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n128k32.f32.e4m3.e4m3", BATON_TEXT_64, "%64, %65", "%66", "1, 1")
               : BATON_SUMS_64(d)
               : "l"(a), "l"(b), "r"(accumulate));
}

// d[64][32] (+)= A[64][16] × B[32][16]ᵀ of BF16, both K-major in shared memory; d[64][128] likewise.
__device__ __forceinline__ void ProductBf16(float (&d)[16], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n32k16.f32.bf16.bf16", BATON_TEXT_16, "%16, %17", "%18", "1, 1, 0, 0")
               : BATON_SUMS_16(d, 0)
               : "l"(a), "l"(b), "r"(accumulate));
}
__device__ __forceinline__ void ProductBf16(float (&d)[64], uint64_t a, uint64_t b, int accumulate) {
  asm volatile(BATON_WGMMA("m64n128k16.f32.bf16.bf16", BATON_TEXT_64, "%64, %65", "%66", "1, 1, 0, 0")
               : BATON_SUMS_64(d)
               : "l"(a), "l"(b), "r"(accumulate));
}

}  // namespace baton::cuda

// How many 8-bit integer operations all cores together do in a second (a multiplication and an addition are two), from
// registers: the ceiling over every product of quantized weights, and so over prefill.
//   integer_peak [SECONDS]  →  "threads=2 median_gop_s=655.1 best_gop_s=660.2 instructions=vpmaddubsw+vpaddw"
#include <immintrin.h>

#include <cstdio>
#include <cstdlib>

#include "timed_passes.h"

namespace {

constexpr int kIterations = 4'000'000;  // some tens of milliseconds a pass
constexpr int kAccumulators = 12;       // enough to hide the latency, few enough for 16 registers

// The empty asm makes the operand look changed, so that no product is taken out of the loop.
__attribute__((target("avx2"))) void MultiplyAvx2() {
  __m256i sums[kAccumulators] = {};
  __m256i weights = _mm256_set1_epi8(7);
  const __m256i activations = _mm256_set1_epi8(3);
  for (int i = 0; i < kIterations; ++i) {
#pragma clang loop unroll(full)
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(weights));
      sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(weights, activations));
    }
  }
  for (__m256i& sum : sums) asm volatile("" : : "x"(sum));
}

__attribute__((target("avx512f,avx512vnni"))) void MultiplyVnni() {
  __m512i sums[kAccumulators] = {};
  __m512i weights = _mm512_set1_epi8(7);
  const __m512i activations = _mm512_set1_epi8(3);
  for (int i = 0; i < kIterations; ++i) {
#pragma clang loop unroll(full)
    for (__m512i& sum : sums) {
      asm volatile("" : "+v"(weights));
      sum = _mm512_dpbusd_epi32(sum, weights, activations);
    }
  }
  for (__m512i& sum : sums) asm volatile("" : : "v"(sum));
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1.0;
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  const bool vnni = __builtin_cpu_supports("avx512vnni") != 0;
  if (!vnni && __builtin_cpu_supports("avx2") == 0) {
    std::fprintf(stderr, "integer_peak: expected a processor with AVX2 or AVX-512 VNNI\n");
    return 1;
  }
  const std::vector<double> passes = TimedPasses(seconds, [vnni] { return vnni ? MultiplyVnni : MultiplyAvx2; });
  const double operations = (vnni ? 128.0 : 64.0) * kAccumulators * kIterations * threads / 1e9;
  std::printf("threads=%u median_gop_s=%.1f best_gop_s=%.1f instructions=%s\n", threads,
              operations / passes[passes.size() / 2], operations / passes[0], vnni ? "vpdpbusd" : "vpmaddubsw+vpaddw");
  return 0;
}

#include "app/version.h"

#include "base/status.h"

#ifndef BATON_VERSION
#define BATON_VERSION "0.1.0"
#endif
#ifndef BATON_BUILD_TYPE
#define BATON_BUILD_TYPE "unknown"
#endif

namespace baton {
namespace {

// The processor's instruction sets that some code path here can use, and the best one that is built.
std::string InstructionSets() {
  std::string sets;
  const auto add = [&](const char* name, bool has) {
    if (has) sets += Cat(sets.empty() ? "" : " ", name);
  };
  add("avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"));
  add("avx512-vnni", __builtin_cpu_supports("avx512vnni"));
  add("avx512-bf16", __builtin_cpu_supports("avx512bf16"));
  return sets.empty() ? "plain" : sets;
}

}  // namespace

std::string VersionText() {
#if BATON_HAVE_CUDA
  const char* cuda = "cuda kernels: sm_90a";
#else
  const char* cuda = "built without cuda";
#endif
  return Cat("baton " BATON_VERSION " (" BATON_BUILD_TYPE "; this machine: ", InstructionSets(), "; ", cuda, ")");
}

}  // namespace baton

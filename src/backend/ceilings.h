// What a device can do at best, measured: the denominators of every speed.
//
// Threading: any thread; measuring takes the whole device for about a second. Errors: those of the device.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace baton {

struct Ceilings {
  double read_bytes_per_second = 0;  // of memory that is in no cache
  double gemm_ops_per_second = 0;    // sustained; a multiplication and an addition are two. FP8 on GPUs, INT8 on CPUs
  double attention_ops_per_second = 0;  // likewise, BF16 on GPUs and FP32 on CPUs
};

absl::StatusOr<Ceilings> MeasureCpuCeilings(int32_t threads);
// Defined only where the build found nvcc.
absl::StatusOr<Ceilings> MeasureCudaCeilings(int32_t device);

// What `threads` threads do together, in passes for `seconds`.
struct MeasuredRate {
  double median = 0, best = 0;  // a second
};
// Bytes, each thread from memory of its own.
MeasuredRate MeasureCpuReadBandwidth(int32_t threads, double seconds);
// 8-bit integer operations and 32-bit float operations, by the best instructions of this machine.
MeasuredRate MeasureCpuIntegerRate(int32_t threads, double seconds);
MeasuredRate MeasureCpuFloatRate(int32_t threads, double seconds);
// "vpdpbusd", "vpmaddubsw+vpaddw" or "scalar": what the integer rate is of.
const char* CpuIntegerInstructions();

}  // namespace baton

// Loops that do nothing but multiply and add, from registers: how fast a core can at best.
#pragma once

#include <cstdint>

namespace baton::cpu {

struct PeakRate {
  int64_t (*run)();  // some hundred thousand operations; returns how many (a multiplication and an addition are two)
};

PeakRate Int8RatePlain();
PeakRate FloatRatePlain();
// Only to be called where the machine has AVX2 and FMA.
PeakRate Int8RateAvx2();  // vpmaddubsw and vpaddw: what products of 4-bit weights need for most of their operations
PeakRate FloatRateAvx2();
// Only where it has AVX-512 with VNNI.
PeakRate Int8RateAvx512();  // vpdpbusd
PeakRate FloatRateAvx512();

}  // namespace baton::cpu
